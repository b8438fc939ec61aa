//! `draw`: misses over size, a panel for each trace.

use std::path::Path;

use plotters::prelude::{
    ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend,
};
use plotters::style::{BLACK, WHITE};

use crate::Failure;
use crate::reference::Reference;
use crate::report::Report;

const WIDTH: u32 = 900;

const PANEL_HEIGHT: u32 = 300;

const COLUMNS: usize = 2;

const OTHERS: [(&str, &str, RGBColor); 3] = [
    ("sieve", "SIEVE", RGBColor(213, 94, 0)),
    ("s3fifo", "S3-FIFO", RGBColor(0, 158, 115)),
    ("lru", "LRU", RGBColor(150, 150, 150)),
];

const OWN: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(86, 180, 233)];

/// Its name, its colour, and misses over sizes.
type Curve = (String, RGBColor, Vec<(f64, f64)>);

pub(crate) fn draw(report: &Report, reference: &Reference, path: &Path) -> Result<(), Failure> {
    let mut traces: Vec<_> =
        report.points.iter().map(|point| (&*point.trace, point.mode)).collect();
    traces.dedup();
    let rows = traces.len().div_ceil(COLUMNS);
    let height = PANEL_HEIGHT * u32::try_from(rows)?;
    let area = SVGBackend::new(path, (WIDTH, height.max(1))).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, (trace, mode)) in area.split_evenly((rows, COLUMNS)).iter().zip(traces) {
        let mut curves: Vec<Curve> = OTHERS
            .iter()
            .map(|(policy, name, colour)| {
                ((*name).to_owned(), *colour, reference.curve(trace, mode, policy))
            })
            .collect();
        let own = || report.points.iter().filter(|point| point.trace == trace);
        let mut ratios: Vec<_> = own().map(|point| point.ratio).collect();
        ratios.sort_unstable();
        ratios.dedup();
        for (ratio, colour) in ratios.into_iter().zip(OWN) {
            let of_ratio = own().filter(|point| point.ratio == ratio);
            let curve = of_ratio.map(|point| (100.0 * point.part, point.outcome.misses)).collect();
            curves.push((format!("tamis, 1:{ratio}"), colour, curve));
        }
        let all = || curves.iter().flat_map(|(_, _, curve)| curve).filter(|(size, _)| *size >= 0.9);
        let most = all().map(|point| point.1).fold(0.0, f64::max);
        let least = all().map(|point| point.1).fold(most, f64::min);
        let mut chart = ChartBuilder::on(panel)
            .caption(trace, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(40)
            .build_cartesian_2d((0.9..45.0).log_scale(), least * 0.97..most * 1.03)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("size, % of the working set")
            .y_desc("misses, %")
            .draw()?;
        for (name, colour, curve) in &curves {
            let points = curve.iter().copied().filter(|(size, _)| *size >= 0.9);
            let width = if name.starts_with("tamis") { 2 } else { 1 };
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(width)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], *colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .border_style(BLACK.mix(0.2))
            .draw()?;
    }
    area.present()?;
    Ok(())
}
