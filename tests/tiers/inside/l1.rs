//! Belongs to the copy of `src/l1/mod.rs`: counts the tier again.

use super::*;

impl L1 {
    /// All entries. An error if the map, the lists and the counts do not agree once no call is
    /// under way.
    pub(crate) fn audited(&self) -> Result<Vec<Arc<Entry>>, String> {
        let mut listed = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            cursor = self.sieve.visit(from, usize::MAX / 1024, &mut listed);
        }
        let tables = self.map.shards().iter();
        let mapped: Vec<Arc<Entry>> =
            tables.flat_map(|table| table.read().iter().cloned().collect::<Vec<_>>()).collect();
        let holds =
            |all: &[Arc<Entry>], one: &Arc<Entry>| all.iter().any(|other| Arc::ptr_eq(other, one));
        if let Some(lost) = listed.iter().find(|entry| !holds(&mapped, entry)) {
            return Err(format!("{lost:?} is in its list and not in the map"));
        }
        if let Some(left) = mapped.iter().find(|entry| !holds(&listed, entry)) {
            return Err(format!("{left:?} is in the map and not in its list"));
        }
        let bytes: usize = listed.iter().map(|entry| entry.charge).sum();
        if bytes != self.bytes() {
            return Err(format!("{bytes} bytes are held, {} are counted", self.bytes()));
        }
        if self.reserved() > 0 {
            return Err(format!("{} bytes are reserved by nobody", self.reserved()));
        }
        let bytes_max = self.bytes_max();
        if bytes > bytes_max {
            return Err(format!("{bytes} bytes are held, {bytes_max} are allowed"));
        }
        Ok(listed)
    }
}
