//! `Codecs`: values to zstd frames and back, in the caller's polls, in batches of 256 KiB.
//!
//! Contexts are large and slow to create, so used ones are kept, a few for each core. A value is
//! stored uncompressed if it is short, if its content type is a compressed format, if it looks like
//! noise, or if its frame would take 95 % of its size or more.

#[cfg(not(all(feature = "disk", target_os = "linux")))]
mod absent;
#[cfg(all(feature = "disk", target_os = "linux"))]
mod frames;

use std::io;

use bytes::Bytes;
use parking_lot::Mutex;

#[cfg(not(all(feature = "disk", target_os = "linux")))]
use self::absent as frames;
use self::frames::{Decoder, Encoder, decode, encode};
use crate::batch::BATCH_BYTES;

/// Shorter values are not compressed.
const BYTES_MIN: usize = 1024;

/// Bytes of a value that are looked at before it is compressed, in runs over all of it.
const SAMPLE_BYTES: usize = 1024;
const RUN_BYTES: usize = 64;

/// Memory of a context at the level of [`frames`]: tables and windows for the largest values.
const CONTEXT_BYTES: usize = 1 << 20;

/// Memory between polls for decompressing a value of `length` bytes, the value itself excluded.
pub(crate) fn decoder_bytes(length: usize) -> usize {
    if length > BATCH_BYTES { CONTEXT_BYTES } else { 0 }
}

/// Memory between polls for compressing a value of `length` bytes: the frame and the encoder.
pub(crate) fn encoder_bytes(length: usize) -> usize {
    if length > BATCH_BYTES { length.saturating_add(CONTEXT_BYTES) } else { length }
}

pub(crate) struct Codecs {
    encoders: Mutex<Vec<Encoder>>,
    decoders: Mutex<Vec<Decoder>>,
    kept: usize,
}

impl Codecs {
    pub(crate) fn new(cores: usize) -> Self {
        Self { encoders: Mutex::default(), decoders: Mutex::default(), kept: 2 * cores }
    }

    /// A frame of less than 95 % of the value; None if there is no such frame, or a sample of the
    /// value looks like noise.
    pub(crate) async fn compress(&self, value: &[u8]) -> Option<Bytes> {
        if value.len() < BYTES_MIN || looks_like_noise(value) {
            return None;
        }
        let kept = self.encoders.lock().pop();
        let mut encoder = kept.map_or_else(frames::encoder, Ok).ok()?;
        let frame = encode(&mut encoder, value).await;
        let mut encoders = self.encoders.lock();
        if encoders.len() < self.kept {
            encoders.push(encoder);
        }
        drop(encoders);
        frame.map(Bytes::from)
    }

    /// The value of `length` bytes that a frame holds. Takes that memory and [`decoder_bytes`].
    ///
    /// # Errors
    ///
    /// `InvalidData`, or zstd's error, if the frame holds anything else; `OutOfMemory`.
    pub(crate) async fn decompress(&self, frame: &[u8], length: usize) -> io::Result<Bytes> {
        let kept = self.decoders.lock().pop();
        let mut decoder = kept.map_or_else(frames::decoder, Ok)?;
        let value = decode(&mut decoder, frame, length).await;
        let mut decoders = self.decoders.lock();
        if decoders.len() < self.kept {
            decoders.push(decoder);
        }
        drop(decoders);
        value.map(Bytes::from)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        (self.encoders.lock().len() + self.decoders.lock().len()) * CONTEXT_BYTES
    }
}

/// Whether each byte value occurs about equally often in a sample of the value, as in encrypted or
/// compressed data: zstd would find nothing to save, except for long repetitions.
///
/// Two bytes of noise are equal with a chance of 1 in 256. Data that entropy coding makes 5 %
/// shorter has at least a tenth more equal pairs. A sample of noise has that in 1 of 100,000 cases,
/// and is then compressed in vain. Half of the sample shows 98 of 100 such values what they are.
fn looks_like_noise(value: &[u8]) -> bool {
    let runs = SAMPLE_BYTES / RUN_BYTES;
    let distance = value.len().saturating_sub(RUN_BYTES) / (runs - 1);
    let mut counts = [0_u32; 256];
    // Bounded: by the sample.
    (0..2).any(|half| {
        // Bounded: by the runs of a sample.
        for run in (half..runs).step_by(2) {
            let start = (run * distance).min(value.len());
            // Bounded: by a run.
            for &byte in &value[start..value.len().min(start + RUN_BYTES)] {
                counts[usize::from(byte)] += 1;
            }
        }
        are_even(&counts)
    })
}

fn are_even(counts: &[u32; 256]) -> bool {
    // Bounded: by the values of a byte.
    let (sampled, pairs) = counts.iter().fold((0, 0), |(sampled, pairs), &count| {
        (sampled + count, pairs + count * count.saturating_sub(1))
    });
    let expected = sampled * sampled.saturating_sub(1) / 256;
    pairs < expected + expected / 10
}

/// Whether values of this content type are already compressed; ignores case and parameters.
pub(crate) fn is_compressed_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, name)) = essence.split_once('/') else { return false };
    match kind {
        "image" => name != "svg+xml",
        "video" => true,
        "audio" => !matches!(name, "wav" | "x-wav"),
        "application" => matches!(
            name,
            "zip" | "gzip" | "x-gzip" | "zstd" | "x-zstd" | "x-brotli" | "octet-stream"
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    #[test]
    fn noise_is_told_from_what_can_be_compressed() {
        let mut random = StdRng::seed_from_u64(1);
        let mut noise = |length: usize| {
            let mut bytes = vec![0; length];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let told = (0..1000).filter(|_| looks_like_noise(&noise(4096))).count();
        assert!(told > 990, "{told} of 1,000");
        assert!(looks_like_noise(&noise(1 << 20)));
        let letters = |bytes: Vec<u8>| bytes.into_iter().map(|byte| b'a' + byte % 64).collect();
        let base64: Vec<u8> = letters(noise(4096));
        let (mut tail, mut numbers) = (noise(4096), noise(4096));
        tail[3000..].fill(0);
        // Every eighth byte is zero, as in small numbers of 64 bits.
        numbers.iter_mut().step_by(8).for_each(|byte| *byte = 0);
        for value in [base64, tail, numbers, vec![7; 1024], b"<li>sieve</li>".repeat(100)] {
            assert!(!looks_like_noise(&value));
        }
    }

    #[test]
    fn only_values_that_shrink_are_compressed_and_all_of_them_round_trip() {
        let codecs = Codecs::new(1);
        let mut random = StdRng::seed_from_u64(1);
        let lengths = [1024, 1025, 5000, BATCH_BYTES - 1, BATCH_BYTES, BATCH_BYTES + 1, 3_000_000];
        for length in lengths {
            for noise in [0, 1, 50, 90, 94, 95, 96, 99, 100] {
                let mut value = vec![7; length];
                random.fill_bytes(&mut value[..length * noise / 100]);
                let frame = block_on(codecs.compress(&value));
                if noise <= 50 {
                    assert!(frame.is_some(), "{length} bytes with {noise} % noise");
                }
                let Some(frame) = frame else { continue };
                assert!(frame.len() * 100 < length * 95, "{} of {length}", frame.len());
                assert_eq!(block_on(codecs.decompress(&frame, length)).unwrap(), value);
            }
            let mut noise = vec![0; length];
            random.fill_bytes(&mut noise);
            assert!(block_on(codecs.compress(&noise)).is_none(), "{length} bytes of noise");
        }
        assert!(block_on(codecs.compress(&[7; 1023])).is_none());
    }

    #[test]
    fn a_frame_of_another_value_or_length_is_an_error() {
        let codecs = Codecs::new(1);
        let mut random = StdRng::seed_from_u64(2);
        for length in [2000, 700_000] {
            let value: Vec<u8> =
                (0..length).map(|n| u8::try_from(n / 100 % 251).unwrap()).collect();
            let frame = block_on(codecs.compress(&value)).unwrap();
            for wrong in [0, 1, length - 1, length + 1, 2 * length] {
                assert!(block_on(codecs.decompress(&frame, wrong)).is_err(), "{wrong}");
            }
            for _ in 0..500 {
                let mut bad = frame.to_vec();
                if random.random() {
                    bad.truncate(random.random_range(0..frame.len()));
                } else {
                    let at = random.random_range(0..frame.len());
                    bad[at] ^= 1 << random.random_range(0..8);
                }
                // Checksums are checked elsewhere: here it need only end and have that length.
                if let Ok(other) = block_on(codecs.decompress(&bad, length)) {
                    assert_eq!(other.len(), length);
                }
            }
            let two = [&frame[..], &frame[..]].concat();
            assert!(block_on(codecs.decompress(&two, length)).is_err());
            assert_eq!(block_on(codecs.decompress(&frame, length)).unwrap(), value, "unharmed");
        }
        assert!(block_on(codecs.decompress(&[], 0)).is_err());
    }

    #[test]
    fn compressed_content_types_are_recognized() {
        for compressed in [
            "image/png",
            "IMAGE/JPEG; q=1",
            "video/mp4",
            "audio/ogg",
            "application/zip",
            " \
             application/Octet-Stream ;x",
        ] {
            assert!(is_compressed_type(compressed), "{compressed}");
        }
        for plain in [
            "image/svg+xml",
            "Image/SVG+XML;charset=utf-8",
            "audio/wav",
            "audio/x-wav",
            "text/html",
            "application/json",
            "image",
            "",
        ] {
            assert!(!is_compressed_type(plain), "{plain}");
        }
    }
}
