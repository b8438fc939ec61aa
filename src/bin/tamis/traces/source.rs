//! `decoded`: the bytes of a file, plain or zstd-compressed, whatever its name.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use zstd::stream::read::Decoder;

/// What a zstd frame begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Less is slower, since a decoder is called for each.
const BUFFER_BYTES: usize = 64 << 10;

pub(super) fn decoded<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let head = head_of(&mut source, ZSTD.len())?;
    let is_compressed = head == ZSTD;
    let whole = Cursor::new(head).chain(source);
    Ok(if is_compressed {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, Decoder::new(whole)?))
    } else {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, whole))
    })
}

/// The first bytes, or all if there are fewer.
pub(super) fn head_of(source: &mut impl Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    source.take(bytes as u64).read_to_end(&mut head)?;
    Ok(head)
}
