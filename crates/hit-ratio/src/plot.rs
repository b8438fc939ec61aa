//! `draw`: misses over size, a panel for each trace.

use crate::Failure;
use crate::chart::{BLUE, Colour, Curve, GREEN, GREY, ORANGE, Panel, Point, svg};
use crate::reference::Reference;
use crate::report::Report;

const COLUMNS: usize = 2;

const OTHERS: [(&str, &str, Colour); 3] =
    [("sieve", "SIEVE", ORANGE), ("s3fifo", "S3-FIFO", GREEN), ("lru", "LRU", GREY)];

const OWN: [Colour; 2] = [BLUE, plotters::style::RGBColor(86, 180, 233)];

/// Smaller sizes, in percent of the working set, are not of this page.
const SIZE_MIN: f64 = 0.9;

pub(crate) fn draw(report: &Report, reference: &Reference) -> Result<String, Failure> {
    let mut traces: Vec<_> =
        report.points.iter().map(|point| (&*point.trace, point.mode)).collect();
    traces.dedup();
    let panel = |(trace, mode): (&str, &str)| {
        let other = |(policy, name, colour): &(&str, &str, Colour)| {
            curve((*name).to_owned(), *colour, 1, reference.curve(trace, mode, policy))
        };
        let mut curves: Vec<_> = OTHERS.iter().map(other).collect();
        let own = || report.points.iter().filter(|point| point.trace == trace);
        let mut ratios: Vec<_> = own().map(|point| point.ratio).collect();
        ratios.sort_unstable();
        ratios.dedup();
        for (ratio, colour) in ratios.into_iter().zip(OWN) {
            let of_ratio = own().filter(|point| point.ratio == ratio);
            let points = of_ratio.map(|point| (100.0 * point.part, point.outcome.misses)).collect();
            curves.push(curve(format!("tamis, 1:{ratio}"), colour, 2, points));
        }
        Panel {
            title: trace.to_owned(),
            x_title: "size, % of the working set",
            y_title: "misses, %",
            x_label: |size| format!("{size}"),
            x_base: 10.0,
            is_from_zero: false,
            curves,
        }
    };
    let panels: Vec<_> = traces.into_iter().map(panel).collect();
    svg(&panels, COLUMNS)
}

fn curve(name: String, colour: Colour, width: u32, points: Vec<(f64, f64)>) -> Curve {
    let points = points.into_iter().filter(|(size, _)| *size >= SIZE_MIN);
    let points = points.map(|(x, y)| Point { x, y, range: None }).collect();
    Curve { name, colour, width, points }
}
