//! The table that is queried: files of sales, a day after the other, with a wide column that no
//! query reads.

use std::error::Error;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions};

const FILES: u32 = 8;
const ROWS: u32 = 100_000;
const ROWS_OF_A_GROUP: usize = 25_000;

/// A number that looks random and is the same in each run.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^= mixed >> 31;
    mixed = mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 29)
}

fn rows(file: u32) -> Result<RecordBatch, Box<dyn Error + Send + Sync>> {
    let row = |row: u32| mixed(u64::from(file) << 32 | u64::from(row));
    let days = (0..ROWS).map(|row| i32::try_from(file * 10 + row * 10 / ROWS));
    let days = Int32Array::from(days.collect::<Result<Vec<_>, _>>()?);
    let category = (0..ROWS).map(|it| format!("category {:02}", row(it) % 20));
    let category = StringArray::from_iter_values(category);
    let amount = (0..ROWS).map(|it| f64::from(u32::try_from(row(it) % 100_000).unwrap_or(0)) / 8.0);
    let amount = Float64Array::from_iter_values(amount);
    let note = (0..ROWS).map(|it| format!("{:016x}{:016x}{:016x}", row(it), !row(it), row(it + 9)));
    let note = StringArray::from_iter_values(note);
    let columns: [(&str, ArrayRef); 4] = [
        ("day", Arc::new(days)),
        ("category", Arc::new(category)),
        ("amount", Arc::new(amount)),
        ("note", Arc::new(note)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Puts the files under `sales`, and returns their bytes in all.
pub(crate) async fn put(store: &InMemory) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut bytes = 0;
    for file in 0..FILES {
        let batch = rows(file)?;
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(ROWS_OF_A_GROUP))
            .set_dictionary_enabled(false);
        let mut writer =
            ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build()))?;
        writer.write(&batch)?;
        let written = writer.into_inner()?;
        bytes += written.len() as u64;
        let path = Path::from(format!("sales/{file}.parquet"));
        store.put_opts(&path, written.into(), PutOptions::default()).await?;
    }
    Ok(bytes)
}
