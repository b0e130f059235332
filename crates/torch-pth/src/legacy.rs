//! Telling PyTorch's old formats from the zip format.

/// How many bytes of a file's beginning tell it.
pub(crate) const HEAD: u64 = 512;

/// The number that a torch.save file from before version 1.6 begins with, as pickles of protocol 2 and later hold it, after their
/// protocol and, from 4 on, the length of a frame.
const MAGIC: [u8; 12] = [
    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];
/// The same in protocols 0 and 1.
const TEXT: &[u8] = b"L119547037146038801333356L";

/// Whether a file that begins with `head` (its first 512 bytes or more) is as `torch.save` wrote before version 1.6, or in the tar archives
/// of before version 0.1.10.
///
/// ```
/// assert!(torch_pth::is_legacy(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."));
/// assert!(!torch_pth::is_legacy(b"PK\x03\x04"));
/// ```
pub fn is_legacy(head: &[u8]) -> bool {
    let is_magic = |rest: &[u8]| rest.starts_with(&MAGIC);
    let pickled = head.strip_prefix(&[0x80]).and_then(|rest| rest.get(1..));
    let framed = |rest: &[u8]| rest.first() == Some(&0x95) && rest.get(9..).is_some_and(is_magic);
    let is_magic_number = pickled.is_some_and(|rest| is_magic(rest) || framed(rest));
    is_magic_number || head.starts_with(TEXT) || is_legacy_tar(head)
}

/// Whether a tar archive's first member is one of those in which PyTorch kept tensors before version 0.1.10.
fn is_legacy_tar(head: &[u8]) -> bool {
    let name = head.split(|&b| b == 0).next().unwrap_or_default();
    let is_tar = head.get(257..262) == Some(b"ustar");
    is_tar && [b"sys_info".as_slice(), b"pickle", b"tensors", b"storages"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_formats_are_told_by_their_beginning() {
        // As Python pickles the number in protocols 0 to 5.
        let frame = b"\x95\x0d\0\0\0\0\0\0\0";
        for start in [
            [b"\x80\x02".as_slice(), &MAGIC, b"."].concat(),
            [b"\x80\x03".as_slice(), &MAGIC, b"."].concat(),
            [b"\x80\x04".as_slice(), frame, &MAGIC, b"."].concat(),
            [b"\x80\x05".as_slice(), frame, &MAGIC, b"."].concat(),
            b"L119547037146038801333356L\n.".to_vec(),
        ] {
            assert!(is_legacy(&start), "{start:?}");
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &start).unwrap();
            let error = crate::PthFile::open(path.path()).err().unwrap();
            assert!(matches!(error, crate::Error::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains("old format"), "{error}");
        }
        let mut tar = vec![0u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(!is_legacy(&tar));
        tar[..8].copy_from_slice(b"sys_info");
        assert!(is_legacy(&tar));
        for other in [
            b"".as_slice(),
            b"PK\x03\x04",
            b"\x80\x04}.",
            b"\x80\x04\x95",
        ] {
            assert!(!is_legacy(other), "{other:?}");
        }
    }
}
