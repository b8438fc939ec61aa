//! A record: whatever decodes encodes again to the same bytes.

use super::{OPEN, OPENS, SEALED, key, position};
use crate::l2::format::BLOCK_BYTES;
use crate::l2::record::{Record, RecordHead, seal};
use crate::l2::string_list::Metadata;

/// Where the record lies: behind the header of a frame.
const AT: usize = BLOCK_BYTES + 32;

/// Any bytes, as a record at one place.
pub(crate) fn record(bytes: &[u8]) {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if mode & SEALED != 0 {
        // What has not even the length of a head stays as it is.
        let _ = seal(&mut bytes, key(), position(AT), OPEN);
    }
    let Ok(head) = RecordHead::decode(&bytes, key(), position(AT), OPENS) else { return };
    let mut again = Vec::new();
    let lengths = head.record.encode(&mut again);
    assert_eq!(lengths, Ok(head.lengths));
    assert_eq!(seal(&mut again, key(), position(AT), head.open_count), Ok(head.checksum));
    assert_eq!(again, bytes[..head.lengths.head()]);
    if let Record::Blob(blob) = head.record {
        assert_eq!(Metadata::new(&blob.metadata.to_map()), blob.metadata);
        assert_eq!(blob.metadata.iter().count(), blob.metadata.len());
        assert_eq!(blob.tags.iter().count(), blob.tags.len());
        assert_eq!(blob.dependencies.iter().count(), blob.dependencies.len());
        assert!(blob.window_end_ns() >= blob.expires_ns);
    }
    if let Ok(body) = head.body(&bytes) {
        assert_eq!(head.lengths.total(), head.lengths.head() + body.len());
        // Of the whole, the body may be any.
        let _ = head.verify_body(body);
    }
}
