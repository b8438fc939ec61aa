//! A query of DataFusion over the files, in a session of its own: what DataFusion holds for the
//! length of a session, such as footers, is not there at the next query.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col, lit};
use object_store::ObjectStore;
use url::Url;

type AnyError = Box<dyn Error + Send + Sync>;

/// So many files are read at once.
const FILES_AT_ONCE: usize = 4;

/// Sales and their amount, by category.
pub(crate) type Sums = BTreeMap<String, (i64, f64)>;

pub(crate) async fn query(store: Arc<dyn ObjectStore>, days: Range<i32>) -> Result<Sums, AnyError> {
    let config = SessionConfig::new()
        .with_target_partitions(FILES_AT_ONCE)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let session = SessionContext::new_with_config(config);
    session.register_object_store(&Url::parse("lake://sales")?, store);
    session.register_parquet("sales", "lake://sales/sales/", ParquetReadOptions::default()).await?;
    let days = col("day").gt_eq(lit(days.start)).and(col("day").lt(lit(days.end)));
    let sales = session.table("sales").await?.filter(days)?;
    let sums_of = vec![count(lit(1)), sum(col("amount"))];
    let mut sums = Sums::new();
    for batch in sales.aggregate(vec![col("category")], sums_of)?.collect().await? {
        let category = batch.column(0).as_string::<i32>();
        let sales = batch.column(1).as_primitive::<Int64Type>();
        let amount = batch.column(2).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            sums.insert(category.value(row).to_owned(), (sales.value(row), amount.value(row)));
        }
    }
    Ok(sums)
}
