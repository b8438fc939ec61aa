//! `Figure`: one figure of a statistic, with what an exporter has to know of it. The macros make
//! the statistics.

use std::fmt;
use std::time::Duration;

/// One figure of [`BlobCacheStats`](crate::BlobCacheStats): see
/// [`figures`](crate::BlobCacheStats::figures).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    name: &'static str,
    kind: FigureKind,
    unit: FigureUnit,
    help: &'static str,
    value: f64,
}

/// How a figure changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FigureKind {
    /// It only grows, from zero at the open.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// What a figure counts or measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FigureUnit {
    /// Things or events.
    Number,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

impl Figure {
    pub(crate) const fn new(
        name: &'static str,
        (kind, unit): (FigureKind, FigureUnit),
        help: &'static str,
        value: f64,
    ) -> Self {
        Self { name, kind, unit, help, value }
    }

    /// The name of its getter. Names are stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How it changes.
    #[must_use]
    pub fn kind(&self) -> FigureKind {
        self.kind
    }

    /// What it counts.
    #[must_use]
    pub fn unit(&self) -> FigureUnit {
        self.unit
    }

    /// What it means: English sentences on one line.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Its value, exact up to 2^53; 1 for true.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }
}

impl fmt::Display for FigureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

impl fmt::Display for FigureUnit {
    /// Nothing for a number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Number => "",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
        })
    }
}

/// A type of figures.
pub(crate) trait Measured {
    fn measured(&self) -> f64;
}

impl Measured for u64 {
    // A counter needs a century to reach 2^53.
    #[allow(clippy::cast_precision_loss)]
    fn measured(&self) -> f64 {
        *self as f64
    }
}

impl Measured for usize {
    fn measured(&self) -> f64 {
        (*self as u64).measured()
    }
}

impl Measured for bool {
    fn measured(&self) -> f64 {
        f64::from(u8::from(*self))
    }
}

impl Measured for Duration {
    fn measured(&self) -> f64 {
        self.as_secs_f64()
    }
}

/// A statistic: a struct with a getter for each figure.
macro_rules! snapshot {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        pub struct $name { $(pub(crate) $field: $type,)* }

        impl $name { $(
            $(#[$doc])*
            #[must_use]
            pub fn $field(&self) -> $type { self.$field.clone() }
        )* }
    };
}

pub(crate) use snapshot;

/// The same, with a kind and a unit for each figure.
macro_rules! figures {
    ($(#[$meta:meta])* $name:ident {
        $($(#[doc = $help:literal])* $field:ident: $type:ty = $kind:ident $unit:ident,)*
    }) => {
        $crate::figures::snapshot! { $(#[$meta])* $name { $($(#[doc = $help])* $field: $type,)* } }

        impl $name {
            /// All figures, each with what an exporter has to know of it, in a fixed order.
            ///
            /// ```
            /// # futures::executor::block_on(async {
            /// # use tamis::{BlobCache, BlobCacheConfig};
            /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
            /// // The text format of Prometheus.
            /// let mut text = String::new();
            /// for figure in cache.stats().figures() {
            ///     let name = format!("tamis_{}", figure.name());
            ///     text += &format!("# HELP {name} {}\n", figure.help());
            ///     text += &format!("# TYPE {name} {}\n", figure.kind());
            ///     text += &format!("{name} {}\n", figure.value());
            /// }
            /// assert!(text.contains("# TYPE tamis_hits counter\ntamis_hits 0\n"));
            /// # Ok::<(), tamis::CacheError>(())
            /// # }).unwrap();
            /// ```
            pub fn figures(&self) -> impl ExactSizeIterator<Item = Figure> + use<> {
                [$(Figure::new(
                    stringify!($field),
                    (FigureKind::$kind, FigureUnit::$unit),
                    concat!($($help),*).trim_ascii(),
                    self.$field.measured(),
                )),*].into_iter()
            }
        }
    };
}
pub(crate) use figures;
