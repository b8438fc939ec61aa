//! `Report`: what a bench has measured: as text, as JSON, and as a plot.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tamis::L2Engine;

use super::super::chart::{BLUE, Colour, Curve, ORANGE, Panel, Point};
use super::super::file_system::FileSystem;
use super::super::output::size;
use super::super::spread::Spread;
use super::super::table::Table;
use super::arguments::Bench;
use super::load::Calls;
use super::raw::RawFile;
use super::store::Shape;

#[derive(Debug)]
pub(super) struct Report {
    file_system: FileSystem,
    pub(super) is_direct: bool,
    pub(super) engine: Option<L2Engine>,
    pub(super) cores: usize,
    pub(super) gets: Vec<Gets>,
    pub(super) puts: Vec<Puts>,
}

/// Gets of one size at one depth.
#[derive(Debug)]
pub(super) struct Gets {
    shape: Shape,
    pub(super) depth: u32,
    per_second: Spread,
    raw_per_second: Spread,
    ratio: Spread,
    /// In microseconds.
    latency: [Spread; 2],
    raw_latency: [Spread; 2],
    read_bytes: Spread,
}

/// Puts of one size at one depth.
#[derive(Debug)]
pub(super) struct Puts {
    shape: Shape,
    pub(super) depth: u32,
    per_second: Spread,
    /// A second, of values.
    bytes: Spread,
    raw_bytes: Spread,
    ratio: Spread,
    /// In microseconds.
    latency: [Spread; 2],
}

impl Gets {
    pub(super) fn new(shape: Shape, depth: u32) -> Self {
        Self {
            shape,
            depth,
            per_second: Spread::default(),
            raw_per_second: Spread::default(),
            ratio: Spread::default(),
            latency: Default::default(),
            raw_latency: Default::default(),
            read_bytes: Spread::default(),
        }
    }

    /// A round: gets, the bytes read for each, and reads of the raw device.
    pub(super) fn add(&mut self, gets: &Calls, read_bytes: f64, raw: &Calls) {
        self.per_second.push(gets.per_second());
        self.raw_per_second.push(raw.per_second());
        self.ratio.push(gets.per_second() / raw.per_second());
        add_latency(&mut self.latency, gets);
        add_latency(&mut self.raw_latency, raw);
        self.read_bytes.push(read_bytes);
    }

    fn figures(&self) -> [(&'static str, &Spread); 8] {
        [
            ("gets_per_second", &self.per_second),
            ("raw_reads_per_second", &self.raw_per_second),
            ("ratio", &self.ratio),
            ("p50_us", &self.latency[0]),
            ("p99_us", &self.latency[1]),
            ("raw_p50_us", &self.raw_latency[0]),
            ("raw_p99_us", &self.raw_latency[1]),
            ("read_bytes_per_get", &self.read_bytes),
        ]
    }
}

impl Puts {
    pub(super) fn new(shape: Shape, depth: u32) -> Self {
        Self {
            shape,
            depth,
            per_second: Spread::default(),
            bytes: Spread::default(),
            raw_bytes: Spread::default(),
            ratio: Spread::default(),
            latency: Default::default(),
        }
    }

    /// A round: puts, and writes of the raw device.
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn add(&mut self, puts: &Calls, raw: &Calls) {
        let bytes = puts.per_second() * self.shape.value_bytes as f64;
        let raw_bytes = raw.per_second() * RawFile::WRITE_BYTES as f64;
        self.per_second.push(puts.per_second());
        self.bytes.push(bytes);
        self.raw_bytes.push(raw_bytes);
        self.ratio.push(bytes / raw_bytes);
        add_latency(&mut self.latency, puts);
    }

    fn figures(&self) -> [(&'static str, &Spread); 6] {
        [
            ("puts_per_second", &self.per_second),
            ("bytes_per_second", &self.bytes),
            ("raw_bytes_per_second", &self.raw_bytes),
            ("ratio", &self.ratio),
            ("p50_us", &self.latency[0]),
            ("p99_us", &self.latency[1]),
        ]
    }
}

fn add_latency(spreads: &mut [Spread; 2], calls: &Calls) {
    for (spread, quantile) in spreads.iter_mut().zip([0.5, 0.99]) {
        spread.push(calls.quantile_us(quantile));
    }
}

impl Report {
    pub(super) fn new(file_system: FileSystem) -> Self {
        let (gets, puts) = (Vec::new(), Vec::new());
        Self { file_system, is_direct: false, engine: None, cores: 1, gets, puts }
    }

    pub(super) fn write(&self) -> io::Result<()> {
        let mut output = io::stdout().lock();
        let engine = self.engine.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
        let cores = self.cores;
        let medium = match (self.file_system.is_in_memory(), self.is_direct) {
            (true, _) => "in memory: THESE ARE NO FIGURES OF A DEVICE",
            (false, true) => "direct I/O",
            (false, false) => "no direct I/O: THE PAGE CACHE IS MEASURED, not the device",
        };
        writeln!(output, "{medium}; engine {engine}, {cores} cores\n")?;
        let mut gets = Table::new(&[
            "gets",
            "depth",
            "a second",
            "raw device",
            "ratio",
            "p50, us",
            "raw",
            "p99, us",
            "raw",
            "read",
        ]);
        for row in &self.gets {
            gets.row([
                size(row.shape.value_bytes),
                row.depth.to_string(),
                row.per_second.show(0),
                row.raw_per_second.show(0),
                row.ratio.show(2),
                row.latency[0].show(0),
                row.raw_latency[0].show(0),
                row.latency[1].show(0),
                row.raw_latency[1].show(0),
                format!("{:.0} B", row.read_bytes.median()),
            ]);
        }
        let mut puts = Table::new(&["puts", "depth", "a second", "MB/s", "raw MB/s", "ratio"]);
        for row in &self.puts {
            puts.row([
                size(row.shape.value_bytes),
                row.depth.to_string(),
                row.per_second.show(0),
                in_megabytes(&row.bytes).show(0),
                in_megabytes(&row.raw_bytes).show(0),
                row.ratio.show(2),
            ]);
        }
        writeln!(output, "{gets}\n{puts}\nMedian of the rounds (lowest..highest).")
    }

    pub(super) fn write_json(&self, asked: &Bench) -> io::Result<()> {
        let mut object = self.file_system.object();
        object["direct_io"] = json!(self.is_direct);
        object["engine"] = json!(self.engine.map(|engine| engine.to_string()));
        object["cores"] = json!(self.cores);
        object["rounds"] = json!(asked.rounds);
        object["seconds"] = json!(asked.seconds);
        let gets = self.gets.iter().map(|it| row(it.shape, it.depth, &it.figures()));
        object["gets"] = gets.collect();
        let puts = self.puts.iter().map(|it| row(it.shape, it.depth, &it.figures()));
        object["puts"] = puts.collect();
        writeln!(io::stdout(), "{object}")
    }

    /// Two for each size: gets, and puts.
    pub(super) fn panels(&self, asked: &Bench) -> Vec<Panel> {
        let panel = |title: String, y_title, curves| Panel {
            title,
            x_title: "depth",
            y_title,
            x_label: |depth| format!("{depth:.0}"),
            x_base: 2.0,
            is_from_zero: true,
            curves,
        };
        let of_size = |&bytes: &u64| {
            let gets = || self.gets.iter().filter(move |row| row.shape.value_bytes == bytes);
            let puts = || self.puts.iter().filter(move |row| row.shape.value_bytes == bytes);
            let own = gets().map(|row| (row.depth, row.per_second.clone()));
            let raw = gets().map(|row| (row.depth, row.raw_per_second.clone()));
            let gets = vec![curve("tamis", BLUE, own), curve("raw device", ORANGE, raw)];
            let own = puts().map(|row| (row.depth, in_megabytes(&row.bytes)));
            let raw = puts().map(|row| (row.depth, in_megabytes(&row.raw_bytes)));
            let puts = vec![curve("tamis", BLUE, own), curve("raw device", ORANGE, raw)];
            let shown = size(bytes);
            [
                panel(format!("gets of {shown}, and raw reads"), "a second", gets),
                panel(format!("puts of {shown}, and raw writes"), "MB/s", puts),
            ]
        };
        asked.size.iter().flat_map(of_size).collect()
    }
}

fn row(shape: Shape, depth: u32, figures: &[(&str, &Spread)]) -> Value {
    let mut object = Map::new();
    object.insert("size".to_owned(), json!(shape.value_bytes));
    object.insert("store_bytes".to_owned(), json!(shape.bytes()));
    object.insert("depth".to_owned(), json!(depth));
    for (name, spread) in figures {
        let (least, most) = (spread.values().next(), spread.values().last());
        let figure = json!({ "median": spread.median(), "min": least, "max": most });
        object.insert((*name).to_owned(), figure);
    }
    object.into()
}

fn curve(name: &str, colour: Colour, points: impl Iterator<Item = (u32, Spread)>) -> Curve {
    let mut points: Vec<_> = points
        .map(|(depth, spread)| Point {
            x: f64::from(depth),
            y: spread.median(),
            range: spread.values().next().zip(spread.values().last()),
        })
        .collect();
    points.sort_by(|left, right| left.x.total_cmp(&right.x));
    Curve { name: name.to_owned(), colour, width: 2, points }
}

fn in_megabytes(bytes: &Spread) -> Spread {
    let mut spread = Spread::default();
    bytes.values().for_each(|figure| spread.push(figure / 1e6));
    spread
}
