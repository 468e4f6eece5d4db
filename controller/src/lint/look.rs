//! File systems and kernels by their superblocks and headers.

use super::Finding;

/// File systems begin at multiples of this, whatever partition table is before them.
const STEP: usize = 4096;
/// Findings of one kind: more say nothing new.
const FINDINGS_MAX: usize = 8;

/// Finds what is compressed in an image.
pub fn look(image: &[u8]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(compression) = packing(image).filter(|name| *name != "lzo") {
        found.push(Finding::CompressedFile { compression: compression.to_owned() });
    }
    for at in (0..image.len()).step_by(STEP) {
        let rest = &image[at..];
        let at = at as u64;
        if let Some(compression) = squashfs(rest) {
            found.push(Finding::CompressedSquashfs { at, compression });
        }
        if let Some(compression) = erofs(rest) {
            found.push(Finding::CompressedErofs { at, compression });
        }
        if found.len() >= FINDINGS_MAX {
            return found;
        }
    }
    found.extend(kernels(image).take(FINDINGS_MAX));
    found
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Returns the compression of a squashfs 4.0 that begins here, if its data are compressed.
fn squashfs(bytes: &[u8]) -> Option<String> {
    const UNCOMPRESSED_DATA: u16 = 0x02;
    if !bytes.starts_with(b"hsqs") || u16_at(bytes, 28)? != 4 || u16_at(bytes, 30)? != 0 {
        return None;
    }
    // Magic words stand in programs too; a superblock says its block size twice.
    let (block, log2) = (u32_at(bytes, 12)?, u16_at(bytes, 22)?);
    if log2 > 20 || block != 1 << log2 || u16_at(bytes, 24)? & UNCOMPRESSED_DATA != 0 {
        return None;
    }
    let name = match u16_at(bytes, 20)? {
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Returns the compression of an erofs that begins here, if it has any.
fn erofs(bytes: &[u8]) -> Option<String> {
    const PADDED_LZ4: u32 = 0x01;
    const CONFIGURED: u32 = 0x02;
    let block = bytes.get(1024..1024 + 128)?;
    if u32_at(block, 0)? != 0xe0f5_e1e2 || !(9..=16).contains(&block[12]) {
        return None;
    }
    let incompatible = u32_at(block, 80)?;
    if incompatible & CONFIGURED != 0 {
        let algorithms = u16_at(block, 84)?;
        let names = ["lz4", "lzma", "deflate", "zstd"];
        let used = names.iter().enumerate().filter(|(bit, _)| algorithms & 1 << bit != 0);
        let used: Vec<&str> = used.map(|(_, name)| *name).collect();
        return Some(used.join(" and "));
    }
    (incompatible & PADDED_LZ4 != 0).then(|| "lz4".to_owned())
}

/// Finds kernels of x86 that unpack themselves (Documentation/arch/x86/boot.rst).
fn kernels(image: &[u8]) -> impl Iterator<Item = Finding> {
    const MAGIC: usize = 0x202;
    let magics = image.windows(4).enumerate().filter(|(_, four)| *four == b"HdrS");
    magics.filter_map(|(magic, _)| {
        let at = magic.checked_sub(MAGIC)?;
        let kernel = &image[at..];
        if u16_at(kernel, 0x1fe)? != 0xaa55 || u16_at(kernel, 0x206)? < 0x208 {
            return None;
        }
        let sectors = usize::from(*kernel.get(0x1f1)?).max(1);
        let payload = (sectors + 1) * 512 + u32_at(kernel, 0x248)? as usize;
        let compression = packing(kernel.get(payload..)?)?.to_owned();
        Some(Finding::PackedKernel { at: at as u64, compression })
    })
}

/// Returns with what these bytes are compressed.
fn packing(bytes: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 7] = [
        (&[0x1f, 0x8b, 8], "gzip"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
        (&[0x04, 0x22, 0x4d, 0x18], "lz4"),
        (b"BZh", "bzip2"),
        (&[0x89, b'L', b'Z', b'O', 0], "lzo"),
    ];
    let known = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    // An LZMA stream has no magic: its usual properties, and a dictionary that is a power of two.
    let lzma = || {
        let dictionary = u32_at(bytes, 1)?;
        (bytes.first() == Some(&0x5d) && dictionary >= 1 << 16 && dictionary.is_power_of_two())
            .then_some("lzma")
    };
    known.or_else(lzma)
}
