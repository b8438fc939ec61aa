//! `svg`: curves over a logarithmic axis, panel by panel, as one SVG.
//!
//! Shared with `crates/hit-ratio`.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Circle, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries,
    PathElement, RGBColor, SVGBackend, SeriesLabelPosition,
};
use plotters::style::{BLACK, WHITE};

/// Colours that those who see fewer of them can tell apart.
pub(crate) const BLUE: Colour = RGBColor(0, 114, 178);
pub(crate) const ORANGE: Colour = RGBColor(213, 94, 0);
pub(crate) const GREEN: Colour = RGBColor(0, 158, 115);
pub(crate) const GREY: Colour = RGBColor(150, 150, 150);

pub(crate) type Colour = RGBColor;

const WIDTH: u32 = 900;

/// Of a panel beside others, and of one that is as wide as the whole.
const HEIGHT: u32 = 300;
const HEIGHT_ALONE: u32 = 450;

/// Around the points of a panel, so that none lies on its edge.
const AROUND: f64 = 1.1;

#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x_title: &'static str,
    pub(crate) y_title: &'static str,
    pub(crate) x_label: fn(f64) -> String,
    /// Marks are at its powers.
    pub(crate) x_base: f64,
    /// Else the axis begins below the lowest point.
    pub(crate) is_from_zero: bool,
    pub(crate) curves: Vec<Curve>,
}

#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) colour: Colour,
    /// Of the line, in pixels.
    pub(crate) width: u32,
    /// From left to right.
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Above zero.
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// The lowest and the highest of several measurements.
    pub(crate) range: Option<(f64, f64)>,
}

type Failure = Box<dyn Error + Send + Sync>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// All panels, side by side in so many columns.
pub(crate) fn svg(panels: &[Panel], columns: usize) -> Result<String, Failure> {
    let mut text = String::new();
    let rows = panels.len().div_ceil(columns.max(1)).max(1);
    let height = if columns > 1 { HEIGHT } else { HEIGHT_ALONE } * u32::try_from(rows)?;
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        for (place, panel) in area.split_evenly((rows, columns.max(1))).iter().zip(panels) {
            draw(place, panel)?;
        }
        area.present()?;
    }
    Ok(text)
}

fn draw(area: &Area<'_>, panel: &Panel) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(panel.x_range().log_scale().base(panel.x_base), panel.y_range())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(panel.x_title)
        .y_desc(panel.y_title)
        .x_label_formatter(&|x| (panel.x_label)(*x))
        .y_label_formatter(&|y| plain(*y))
        .draw()?;
    for Curve { name, colour, width, points } in &panel.curves {
        let colour = *colour;
        let line = points.iter().map(|point| (point.x, point.y));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(*width)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
        // A line needs two points.
        let alone = points.iter().filter(|_| points.len() == 1);
        chart
            .draw_series(alone.map(|point| Circle::new((point.x, point.y), 3, colour.filled())))?;
        let ranges = points.iter().filter_map(|point| Some((point.x, point.range?)));
        chart.draw_series(ranges.map(|(x, (least, most))| {
            PathElement::new([(x, least), (x, most)], colour.stroke_width(1))
        }))?;
    }
    // Where curves that rise from zero, and curves that fall, are least likely to be.
    let place = if panel.is_from_zero {
        SeriesLabelPosition::LowerRight
    } else {
        SeriesLabelPosition::UpperRight
    };
    chart
        .configure_series_labels()
        .position(place)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    Ok(())
}

impl Panel {
    fn points(&self) -> impl Iterator<Item = Point> {
        self.curves.iter().flat_map(|curve| curve.points.iter().copied())
    }

    fn x_range(&self) -> std::ops::Range<f64> {
        let most = self.points().map(|point| point.x).fold(0.0, f64::max);
        let least = self.points().map(|point| point.x).fold(most, f64::min);
        if least > 0.0 { least / AROUND..most * AROUND } else { 1.0..10.0 }
    }

    fn y_range(&self) -> std::ops::Range<f64> {
        let highest = |point: Point| point.range.map_or(point.y, |(_, most)| most);
        let most = self.points().map(highest).fold(0.0, f64::max);
        if self.is_from_zero {
            return 0.0..if most > 0.0 { most * AROUND } else { 1.0 };
        }
        let least = self.points().map(|point| point.y).fold(most, f64::min);
        // A tenth of the height, or of the figure if all are equal.
        let margin = (most - least).max(most / 10.0).max(0.1) / 10.0;
        (least - margin).max(0.0)..most + margin
    }
}

/// A number without digits that say nothing.
fn plain(number: f64) -> String {
    let digits = if number.fract().abs() < 0.005 { 0 } else { 1 };
    format!("{number:.digits$}")
}
