//! `draw`: memory, descriptors and threads, throughput and latencies over time.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
    RGBColor, SVGBackend,
};
use plotters::style::{BLACK, WHITE};

use crate::Failure;
use crate::report::{Report, Sample};
use crate::verb::Verb;

const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 260;

const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const GREY: RGBColor = RGBColor(150, 150, 150);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Its name, its colour, and figures over time.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

pub(crate) fn draw(report: &Report, path: &Path) -> Result<(), Failure> {
    let area = SVGBackend::new(path, (WIDTH, 5 * PANEL_HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((5, 1));
    let over_time = |figure: &dyn Fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        report.samples.iter().map(|sample| (sample.seconds, figure(sample))).collect()
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let bound = mib(report.idle.resident + report.bounds.resident);
    let memory: [Curve; 4] = [
        ("idle and the stated bounds", GREY, over_time(&|_| bound)),
        ("resident", BLUE, over_time(&|it| mib(it.resources.resident))),
        ("entries in memory, as counted", GREEN, over_time(&|it| mib(it.l1_bytes))),
        ("index on disk, as counted", ORANGE, over_time(&|it| mib(it.index_bytes))),
    ];
    panel(report, &panels[0], "memory, MiB", &memory, Scale::FromZero)?;
    let kept: [Curve; 2] = [
        ("descriptors", BLUE, over_time(&|it| it.resources.descriptors as f64)),
        ("threads", ORANGE, over_time(&|it| it.resources.threads as f64)),
    ];
    panel(report, &panels[1], "descriptors and threads", &kept, Scale::FromZero)?;
    let calls: [Curve; 1] = [("all verbs", BLUE, over_time(&|it| it.calls_per_second))];
    panel(report, &panels[2], "calls a second", &calls, Scale::FromZero)?;
    for (panel_area, verb) in panels[3..].iter().zip([Verb::Get, Verb::Put]) {
        let of = move |sample: &Sample| sample.verbs[verb.place()];
        let latency: [Curve; 3] = [
            ("p50", GREEN, over_time(&|it| millis(of(it).p50))),
            ("p99", BLUE, over_time(&|it| millis(of(it).p99))),
            ("worst", ORANGE, over_time(&|it| millis(of(it).worst))),
        ];
        let title = format!("latency of {}, ms", verb.name());
        panel(report, panel_area, &title, &latency, Scale::Logarithmic)?;
    }
    area.present()?;
    Ok(())
}

/// A curve on a logarithmic axis has no zero.
fn millis(micros: u64) -> f64 {
    micros.max(1) as f64 / 1e3
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    FromZero,
    Logarithmic,
}

/// Draws the mesh, the curves and the beginning of the antagonist.
macro_rules! draw_chart {
    ($report:expr, $chart:expr, $curves:expr, $range:expr) => {{
        let mut chart = $chart;
        chart.configure_mesh().light_line_style(WHITE).x_desc("s").draw()?;
        if let Some(first) = $report.samples.iter().find(|sample| sample.antagonist) {
            let line = [(first.seconds, $range.0), (first.seconds, $range.1)];
            let series = LineSeries::new(line, BLACK.stroke_width(1));
            chart
                .draw_series(series)?
                .label("antagonist begins")
                .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLACK));
        }
        for (name, colour, points) in $curves {
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(1)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
        }
        let mut labels = chart.configure_series_labels();
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
    }};
}

fn panel(
    report: &Report,
    area: &Area<'_>,
    title: &str,
    curves: &[Curve],
    scale: Scale,
) -> Result<(), Failure> {
    let figures = || curves.iter().flat_map(|(_, _, points)| points).map(|point| point.1);
    let most = figures().fold(1e-3, f64::max) * 1.1;
    let least = figures().fold(most, f64::min) * 0.9;
    let seconds = report.samples.last().map_or(1.0, |sample| sample.seconds);
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(56);
    if scale == Scale::FromZero {
        let chart = builder.build_cartesian_2d(0.0..seconds, 0.0..most)?;
        draw_chart!(report, chart, curves, (0.0, most));
    } else {
        let chart = builder.build_cartesian_2d(0.0..seconds, (least..most).log_scale())?;
        draw_chart!(report, chart, curves, (least, most));
    }
    Ok(())
}
