//! The schema, and the statements that clients may ask for by name.

use super::proto::Call;
use super::proto::value::Kind;

/// The tables of the schema.
pub(super) const TABLES: [&str; 2] = ["products", "stock"];

/// These tables, and the one of their stamps.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS products (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        category TEXT NOT NULL,
        price INTEGER NOT NULL CHECK (price >= 0)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS products_by_category ON products (category);
    CREATE TABLE IF NOT EXISTS stock (
        product INTEGER NOT NULL REFERENCES products ON DELETE CASCADE,
        place TEXT NOT NULL,
        pieces INTEGER NOT NULL CHECK (pieces >= 0),
        PRIMARY KEY (product, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stamps (
        name TEXT PRIMARY KEY,
        stamp BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// A stamp for a table, which its triggers renew with each change, whoever makes it.
pub(super) fn stamp_of(table: &str) -> String {
    let trigger = |event: &str| {
        format!(
            "CREATE TRIGGER IF NOT EXISTS {table}_{event} AFTER {event} ON {table} BEGIN
                 UPDATE stamps SET stamp = randomblob(16) WHERE name = '{table}';
             END;"
        )
    };
    let triggers = ["insert", "update", "delete"].map(trigger).concat();
    format!("INSERT OR IGNORE INTO stamps VALUES ('{table}', randomblob(16)); {triggers}")
}

/// A kind of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Integer,
    Text,
}

/// A statement that clients may ask for.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    /// The tables that it reads. Empty for one that changes them: triggers tell which.
    pub(super) tables: &'static [&'static str],
    parameters: &'static [Type],
}

pub(super) const QUERIES: &[Statement] = &[
    Statement {
        name: "product",
        sql: "SELECT id, name, category, price FROM products WHERE id = ?1",
        tables: &["products"],
        parameters: &[Type::Integer],
    },
    Statement {
        name: "category",
        sql: "SELECT id, name, price FROM products WHERE category = ?1 ORDER BY id LIMIT 1000",
        tables: &["products"],
        parameters: &[Type::Text],
    },
    Statement {
        name: "stock",
        sql: "SELECT place, pieces FROM stock WHERE product = ?1 ORDER BY place LIMIT 1000",
        tables: &["stock"],
        parameters: &[Type::Integer],
    },
    Statement {
        name: "available",
        sql: "SELECT id, name, sum(pieces) AS pieces FROM products JOIN stock ON product = id
              WHERE category = ?1 GROUP BY id ORDER BY id LIMIT 1000",
        tables: &["products", "stock"],
        parameters: &[Type::Text],
    },
];

pub(super) const CHANGES: &[Statement] = &[
    Statement {
        name: "put_product",
        sql: "INSERT INTO products (id, name, category, price) VALUES (?1, ?2, ?3, ?4)
              ON CONFLICT (id) DO UPDATE
              SET name = excluded.name, category = excluded.category, price = excluded.price",
        tables: &[],
        parameters: &[Type::Integer, Type::Text, Type::Text, Type::Integer],
    },
    Statement {
        name: "remove_product",
        sql: "DELETE FROM products WHERE id = ?1",
        tables: &[],
        parameters: &[Type::Integer],
    },
    Statement {
        name: "put_stock",
        sql: "INSERT INTO stock (product, place, pieces) VALUES (?1, ?2, ?3)
              ON CONFLICT (product, place) DO UPDATE SET pieces = excluded.pieces",
        tables: &[],
        parameters: &[Type::Integer, Type::Text, Type::Integer],
    },
];

/// Longer texts are refused: a key of the cache has the parameters in it.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a call is no call of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    Unknown,
    Parameters,
}

/// The statement of a call, whose parameters are right.
pub(super) fn find(
    statements: &'static [Statement],
    call: &Call,
) -> Result<&'static Statement, Mistake> {
    let found = statements.iter().find(|statement| statement.name == call.statement);
    let statement = found.ok_or(Mistake::Unknown)?;
    let given = call.parameters.iter().map(|value| match &value.kind {
        Some(Kind::Integer(_)) => Some(Type::Integer),
        Some(Kind::Text(text)) if text.len() <= TEXT_BYTES_MAX => Some(Type::Text),
        _ => None,
    });
    let wanted = statement.parameters.iter().copied().map(Some);
    if given.eq(wanted) { Ok(statement) } else { Err(Mistake::Parameters) }
}
