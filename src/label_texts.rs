//! `LabelTexts`: the tags and dependencies of an entry as they were put, in one allocation.
//!
//! Invalidations need hashes alone; these are for callers who list entries.

/// What the length of each label takes, and the number of tags.
const NUMBER_BYTES: usize = 4;

/// Nothing on the heap without labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LabelTexts(Box<[u8]>);

impl LabelTexts {
    pub(crate) fn new<'a>(
        tags: impl Iterator<Item = &'a str> + Clone,
        dependencies: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let all = tags.clone().chain(dependencies);
        // Bounded: by the labels of one entry.
        let bytes: usize = all.clone().map(|label| NUMBER_BYTES + label.len()).sum();
        if bytes == 0 {
            return Self::default();
        }
        let mut texts = Vec::with_capacity(NUMBER_BYTES + bytes);
        texts.extend_from_slice(&number(tags.count()));
        // Bounded: likewise.
        for label in all {
            texts.extend_from_slice(&number(label.len()));
            texts.extend_from_slice(label.as_bytes());
        }
        Self(texts.into())
    }

    /// Its memory on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// In the order of the put.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.all().take(self.tag_count())
    }

    pub(crate) fn dependencies(&self) -> impl Iterator<Item = &str> {
        self.all().skip(self.tag_count())
    }

    fn tag_count(&self) -> usize {
        self.0.first_chunk().map_or(0, |count| as_usize(*count))
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.0.get(NUMBER_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (label, behind) = behind.split_at_checked(as_usize(*length))?;
            rest = behind;
            std::str::from_utf8(label).ok()
        })
    }
}

fn number(number: usize) -> [u8; NUMBER_BYTES] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

fn as_usize(bytes: [u8; NUMBER_BYTES]) -> usize {
    usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_dependencies_come_back_in_their_order() {
        let long = "x".repeat(70_000);
        let labels = ["", "b", "ä", "b", &long];
        for tags in 0..=labels.len() {
            let (first, second) = labels.split_at(tags);
            let texts = LabelTexts::new(first.iter().copied(), second.iter().copied());
            assert!(texts.tags().eq(first.iter().copied()), "{tags}");
            assert!(texts.dependencies().eq(second.iter().copied()), "{tags}");
        }
        let none = LabelTexts::new([].into_iter(), [].into_iter());
        assert_eq!((none.bytes(), none.tags().count()), (0, 0));
        assert_eq!(none.dependencies().count(), 0);
    }
}
