//! `Figure`: one figure of a statistic, with what an exporter has to know of it. The macros make
//! the statistics.

use std::fmt;
use std::time::Duration;

/// One figure of [`BlobCacheStats`](crate::BlobCacheStats) or
/// [`NamespaceStats`](crate::NamespaceStats): see [`figures`](crate::BlobCacheStats::figures).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    prefix: &'static str,
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
    /// It only grows, from zero at the open; those of a namespace begin at zero again when its slot
    /// is given up, by a flush or when it is empty.
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
        (prefix, name): (&'static str, &'static str),
        (kind, unit): (FigureKind, FigureUnit),
        help: &'static str,
        value: f64,
    ) -> Self {
        Self { prefix, name, kind, unit, help, value }
    }

    /// The name of its getter. Names are stable.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A name for exporters, as Prometheus asks for: `tamis_`, for a namespace `tamis_namespace_`,
    /// then its name, its unit if the name lacks it, and `_total` if it is a counter. Stable.
    ///
    /// ```
    /// let stats = tamis::BlobCacheStats::default();
    /// let names: Vec<_> = stats.figures().map(|figure| figure.export_name()).collect();
    /// assert_eq!(names[0], "tamis_hits_total");
    /// assert!(names.contains(&"tamis_l2_read_bytes_total".to_owned()));
    /// assert!(names.contains(&"tamis_recovery_duration_seconds".to_owned()));
    /// ```
    #[must_use]
    pub fn export_name(&self) -> String {
        let (prefix, name) = (self.prefix, self.name.trim_end_matches("_total"));
        let unit = match self.unit {
            FigureUnit::Bytes if !name.contains("bytes") => "_bytes",
            FigureUnit::Seconds => "_seconds",
            FigureUnit::Bytes | FigureUnit::Number => "",
        };
        let total = if self.kind == FigureKind::Counter { "_total" } else { "" };
        format!("{prefix}{name}{unit}{total}")
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

/// The same, with a kind and a unit for each figure, and a prefix for the names that are exported.
/// Values that are no figures follow.
macro_rules! figures {
    ($(#[$meta:meta])* $name:ident as $prefix:literal {
        $($(#[doc = $help:literal])* $field:ident: $type:ty = $kind:ident $unit:ident,)*
    } and {
        $($(#[$doc:meta])* $other:ident: $other_type:ty,)*
    }) => {
        $crate::figures::snapshot! {
            $(#[$meta])*
            $name {
                $($(#[doc = $help])* $field: $type,)*
                $($(#[$doc])* $other: $other_type,)*
            }
        }

        impl $name {
            /// All figures, each with what an exporter has to know of it, in a fixed order.
            ///
            /// ```
            #[doc = concat!("let stats = tamis::", stringify!($name), "::default();")]
            /// for figure in stats.figures() {
            ///     let (kind, unit) = (figure.kind(), figure.unit());
            ///     println!("{} {kind} {unit}: {}", figure.name(), figure.value());
            /// }
            /// let hits = stats.figures().find(|figure| figure.name() == "hits").unwrap();
            /// assert_eq!((hits.kind(), hits.value()), (tamis::FigureKind::Counter, 0.0));
            #[doc = concat!("assert_eq!(hits.export_name(), \"", $prefix, "hits_total\");")]
            /// ```
            pub fn figures(&self) -> impl ExactSizeIterator<Item = Figure> + use<> {
                [$(Figure::new(
                    ($prefix, stringify!($field)),
                    (FigureKind::$kind, FigureUnit::$unit),
                    concat!($($help),*).trim_ascii(),
                    self.$field.measured(),
                )),*].into_iter()
            }
        }
    };
}
pub(crate) use figures;
