//! `Source`: draws from the bytes of an input. When they are used up, every draw is zero.

pub(super) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Below 65,536.
    pub(super) fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// A number below `bound`, which is up to 256.
    pub(super) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// A place in so many bytes or other things: a fraction of them, so that it means much the same
    /// in any number.
    pub(super) fn place(&mut self, length: usize) -> usize {
        let place = u32::from_le_bytes([self.byte(), self.byte(), self.byte(), 0]);
        (length * place as usize) >> 24
    }
}
