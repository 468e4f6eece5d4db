use tern_protocol::limits::CHUNK;

use super::Finding;
use super::compare::compare;
use super::look::look;

/// The first bytes of a squashfs 4.0 as mksquashfs writes it.
fn squashfs(compression: u16, flags: u16) -> Vec<u8> {
    let mut image = vec![0; 8192];
    image[..4].copy_from_slice(b"hsqs");
    image[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    image[20..22].copy_from_slice(&compression.to_le_bytes());
    image[22..24].copy_from_slice(&17u16.to_le_bytes());
    image[24..26].copy_from_slice(&flags.to_le_bytes());
    image[28..30].copy_from_slice(&4u16.to_le_bytes());
    image
}

fn erofs(incompatible: u32, algorithms: u16) -> Vec<u8> {
    let mut image = vec![0; 8192];
    image[1024..1028].copy_from_slice(&0xe0f5_e1e2u32.to_le_bytes());
    image[1024 + 12] = 12;
    image[1024 + 80..1024 + 84].copy_from_slice(&incompatible.to_le_bytes());
    image[1024 + 84..1024 + 86].copy_from_slice(&algorithms.to_le_bytes());
    image
}

fn kernel(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 64 * 1024];
    image[0x1f1] = 3;
    image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&0x300u32.to_le_bytes());
    let at = 4 * 512 + 0x300;
    image[at..at + payload.len()].copy_from_slice(payload);
    image
}

#[test]
fn a_compressed_squashfs_is_found_wherever_it_begins_and_an_uncompressed_one_is_not() {
    let of = |at, compression: &str| Finding::CompressedSquashfs { at, compression: compression.into() };
    assert_eq!(look(&squashfs(4, 0)), [of(0, "xz")]);
    assert_eq!(look(&[vec![1; 1 << 20], squashfs(6, 0xc0)].concat()), [of(1 << 20, "zstd")]);
    assert_eq!(look(&squashfs(1, 0x0b)), []);
    let mut word = squashfs(4, 0);
    word[22] = 16;
    assert_eq!(look(&word), [], "the magic alone is no file system");
}

#[test]
fn a_compressed_erofs_is_found_and_an_uncompressed_one_is_not() {
    let of = |compression: &str| Finding::CompressedErofs { at: 0, compression: compression.into() };
    assert_eq!(look(&erofs(1, 0)), [of("lz4")]);
    assert_eq!(look(&erofs(3, 0b1001)), [of("lz4 and zstd")]);
    assert_eq!(look(&erofs(4, 0)), []);
}

#[test]
fn a_packed_kernel_is_found_alone_and_inside_and_an_unpacked_one_is_not() {
    let of = |at, compression: &str| Finding::PackedKernel { at, compression: compression.into() };
    assert_eq!(look(&kernel(&[0x1f, 0x8b, 8])), [of(0, "gzip")]);
    assert_eq!(look(&kernel(&[0x28, 0xb5, 0x2f, 0xfd])), [of(0, "zstd")]);
    assert_eq!(look(&kernel(&[0x02, 0x21, 0x4c, 0x18])), [of(0, "lz4")]);
    let inside = [vec![7; 5000], kernel(&[0xfd, b'7', b'z', b'X', b'Z', 0])].concat();
    assert_eq!(look(&inside), [of(5000, "xz")]);
    assert_eq!(look(&kernel(b"\x7fELF")), []);
}

#[test]
fn a_file_that_is_compressed_as_a_whole_is_found() {
    let gzip = [&[0x1f, 0x8b, 8][..], &[0; 100]].concat();
    assert_eq!(look(&gzip), [Finding::CompressedFile { compression: "gzip".into() }]);
    assert_eq!(look(b""), []);
    assert_eq!(look(&[0x5d; 3]), []);
}

#[test]
fn file_systems_with_another_identity_are_told_apart_field_by_field() {
    let ext4 = |uuid: u8, seed: u8| {
        let mut image = vec![0; 8192];
        image[1024 + 56..1024 + 58].copy_from_slice(&[0x53, 0xef]);
        image[1024 + 0x68] = uuid;
        image[1024 + 0xec] = seed;
        image
    };
    let fields = |fields: &[&str]| {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        Finding::FileSystemIdentity { system: "ext4".into(), fields }
    };

    assert_eq!(compare(&ext4(1, 1), &ext4(2, 3)), [fields(&["UUID", "hash seed"])]);
    assert_eq!(compare(&ext4(1, 1), &ext4(1, 3)), [fields(&["hash seed"])]);
    assert_eq!(compare(&ext4(1, 1), &ext4(1, 1)), []);
}

#[test]
fn time_stamps_everywhere_are_a_finding_and_one_changed_program_is_not() {
    let old = vec![1; 40 * CHUNK];
    let mut stamped = old.clone();
    (0..40).for_each(|chunk| stamped[chunk * CHUNK + 9] = 2);
    let mut rebuilt = old.clone();
    rebuilt[3 * CHUNK..8 * CHUNK].fill(2);

    assert_eq!(compare(&old, &stamped), [Finding::ScatteredChanges { chunks: 40, changed: 40, all: 40 }]);
    assert_eq!(compare(&old, &rebuilt), []);
    assert_eq!(compare(&old, &old), []);
}
