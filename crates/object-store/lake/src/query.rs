//! `SELECT category, count(*), sum(amount) FROM sales WHERE day >= .. AND day < .. GROUP BY 1`,
//! as a query engine reads it by parquet's async reader: the footer of each file, row groups pruned
//! by their statistics, three columns of four, several files at once.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

#[expect(deprecated, reason = "its successor is for each application to write")]
type Reader = parquet::arrow::async_reader::ParquetObjectReader;

type AnyError = Box<dyn Error + Send + Sync>;

/// So many files are read at once.
const FILES_AT_ONCE: usize = 4;

/// Sales and their amount, by category.
pub(crate) type Sums = BTreeMap<String, (u64, f64)>;

pub(crate) async fn query(store: Arc<dyn ObjectStore>, days: Range<i32>) -> Result<Sums, AnyError> {
    let files: Vec<ObjectMeta> = store.list(Some(&"sales".into())).try_collect().await?;
    let parts = files.into_iter().map(|file| one_file(Arc::clone(&store), file, days.clone()));
    let mut parts = futures::stream::iter(parts).buffered(FILES_AT_ONCE);
    let mut sums = Sums::new();
    while let Some(part) = parts.try_next().await? {
        for (category, (sales, amount)) in part {
            let sum = sums.entry(category).or_default();
            *sum = (sum.0 + sales, sum.1 + amount);
        }
    }
    Ok(sums)
}

fn may_have(group: &RowGroupMetaData, days: &Range<i32>) -> bool {
    match group.column(0).statistics() {
        Some(Statistics::Int32(it)) => {
            it.max_opt().is_none_or(|max| *max >= days.start)
                && it.min_opt().is_none_or(|min| *min < days.end)
        }
        _ => true,
    }
}

async fn one_file(
    store: Arc<dyn ObjectStore>,
    file: ObjectMeta,
    days: Range<i32>,
) -> Result<Sums, AnyError> {
    let reader = Reader::new(store, file.location).with_file_size(file.size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
    let groups = builder.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| may_have(group, &days)).map(|(number, _)| number);
    let groups: Vec<usize> = groups.collect();
    let columns = ProjectionMask::leaves(builder.parquet_schema(), [0, 1, 2]);
    let mut batches = builder.with_row_groups(groups).with_projection(columns).build()?;
    let mut sums = Sums::new();
    while let Some(batch) = batches.try_next().await? {
        let day = batch.column(0).as_primitive::<Int32Type>();
        let category = batch.column(1).as_string::<i32>();
        let amount = batch.column(2).as_primitive::<Float64Type>();
        for row in (0..batch.num_rows()).filter(|row| days.contains(&day.value(*row))) {
            let sum = sums.entry(category.value(row).to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1 + amount.value(row));
        }
    }
    Ok(sums)
}
