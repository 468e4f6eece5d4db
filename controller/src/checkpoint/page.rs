//! A page of devices as bytes: postcard, in parts that the store takes well.

use tern_protocol::id::DeviceId;

use crate::core::fleet::device::Device;

/// Bytes of one part. Four of them fit into a segment of the embedded engine; a larger value would leave most of its own
/// unused.
const PART: usize = 120 * 1024;
/// The first part begins with the length of all.
const LENGTH: usize = 4;

/// Renders a page.
pub(super) fn to_parts(devices: &[(&DeviceId, &Device)]) -> Result<Vec<Vec<u8>>, postcard::Error> {
    let bytes = postcard::to_extend(devices, vec![0; LENGTH])?;
    let length = u32::try_from(bytes.len()).map_err(|_| postcard::Error::SerializeBufferFull)?;
    let mut parts: Vec<Vec<u8>> = bytes.chunks(PART).map(<[u8]>::to_vec).collect();
    parts[0][..LENGTH].copy_from_slice(&length.to_le_bytes());
    Ok(parts)
}

/// Reads a page whose parts `part` returns, by their number; none if it is not whole or does not read.
pub(super) fn from_parts<E>(
    mut part: impl FnMut(u16) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<(DeviceId, Device)>>, E> {
    let Some(mut bytes) = part(0)? else { return Ok(None) };
    let Some(length) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) else {
        return Ok(None);
    };
    let mut number = 1;
    while bytes.len() < length {
        match part(number)? {
            Some(more) if !more.is_empty() => bytes.extend_from_slice(&more),
            _ => return Ok(None),
        }
        number += 1;
    }
    Ok(postcard::from_bytes(&bytes[LENGTH..]).ok().filter(|_| bytes.len() == length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::{device, reported};

    fn read(parts: &[Vec<u8>]) -> Option<Vec<(DeviceId, Device)>> {
        from_parts(|part| Ok::<_, ()>(parts.get(usize::from(part)).cloned())).unwrap()
    }

    #[test]
    fn a_page_of_any_length_reads_back() {
        for count in [0, 1, 1024] {
            let devices: Vec<_> = (0..count).map(reported).collect();
            let parts =
                to_parts(&devices.iter().map(|(id, device)| (id, device)).collect::<Vec<_>>()).unwrap();

            assert_eq!(read(&parts), Some(devices));
            assert!(parts.iter().all(|part| part.len() <= PART) && (count < 1024 || parts.len() > 1));
        }
    }

    #[test]
    fn a_page_that_is_not_whole_does_not_read() {
        let devices: Vec<_> = (0..1024).map(device).collect();
        let whole = to_parts(&devices.iter().map(|(id, device)| (id, device)).collect::<Vec<_>>()).unwrap();
        let without_last = &whole[..whole.len() - 1];
        let mut cut = whole.clone();
        cut.last_mut().unwrap().pop();

        assert_eq!((read(without_last), read(&cut), read(&[])), (None, None, None));
        assert!(read(&whole).is_some());
    }

    /// Change [`FORM`](super::super::directory) when this changes: pages that were written before do not read any more,
    /// or worse, read as something else.
    #[test]
    fn the_form_of_a_device_is_what_the_directory_says() {
        let (id, device) = reported(7);
        let parts = to_parts(&[(&id, &device)]).unwrap();

        insta::assert_snapshot!(hex::encode(&parts[0]));
    }
}
