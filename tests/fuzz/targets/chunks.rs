//! Packs, and the index of an image: pieces of its tree, the set of chunks in the journal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_protocol::chunk::{ChunkSet, PieceId, TreeShape, chunk_length, chunks_of};
use tern_protocol::limits::CHUNKS_MAX;
use tern_protocol::message::{Pack, PackKind};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pack) = Pack::read(bytes) {
        assert_eq!(pack.write(), bytes);
        if let (PackKind::Piece(piece), Some(digests)) = (pack.kind, pack.digests()) {
            let shape = TreeShape::new(u32::try_from(digests.len()).expect("a pack is small").max(1));
            if let Some(count) = shape.digests_in(piece) {
                assert!(shape.cut(&digests, piece).is_none_or(|cut| cut.len() == count));
            }
        }
    }
    if let Some((eight, rest)) = bytes.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*eight);
        if let Some(chunks) = chunks_of(length) {
            assert!(chunks <= CHUNKS_MAX);
            let shape = TreeShape::new(chunks);
            let top = shape.digests_in(shape.top()).unwrap_or_default();
            assert!(top > 0 || chunks == 0, "a tree without a top");
            for index in rest.iter().map(|byte| u32::from(*byte) * 1009) {
                if index < chunks {
                    assert!(shape.digests_in(shape.piece_of(index)).is_some());
                    assert!(chunk_length(length, index) > 0);
                }
                let _some = shape.digests_in(PieceId { level: (index % 5) as u8, index });
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(set) = serde_json::from_value::<ChunkSet>(serde_json::Value::String(text.to_owned()))
    {
        let missing: u32 = set.missing(300, 300).iter().map(|range| range.end - range.start).sum();
        assert!(missing <= 300 && set.len() <= CHUNKS_MAX);
    }
});
