//! `draw`: all contests as one SVG: a bar for each contestant's median, with its spread.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    Color, DrawingArea, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend,
    Text, TextStyle,
};
use plotters::style::{BLACK, WHITE};

use crate::Error;
use crate::contest::Outcome;
use crate::report::Report;
use crate::spread::Spread;

const WIDTH: u32 = 900;
const HEAD_HEIGHT: u32 = 34;
const BAR_HEIGHT: u32 = 20;

/// Where names end and bars begin, and where the longest bar ends.
const BARS: (i32, i32) = (190, 620);

const OWN: RGBColor = RGBColor(0, 114, 178);
const PEER: RGBColor = RGBColor(160, 160, 160);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(crate) fn draw(report: &Report, path: &Path) -> Result<(), Error> {
    let heights = report.entries.iter().map(|entry| height(&entry.outcome));
    let total: u32 = heights.sum();
    let mut rest = SVGBackend::new(path, (WIDTH, total.max(1))).into_drawing_area();
    rest.fill(&WHITE)?;
    for entry in &report.entries {
        let (panel, below) = rest.split_vertically(height(&entry.outcome));
        draw_contest(&panel, entry.row, &entry.outcome)?;
        rest = below;
    }
    rest.present()?;
    Ok(())
}

fn height(outcome: &Outcome) -> u32 {
    let bars = u32::try_from(outcome.contestants.len()).unwrap_or(0);
    HEAD_HEIGHT + BAR_HEIGHT * bars
}

fn draw_contest(panel: &Area<'_>, row: &str, outcome: &Outcome) -> Result<(), Error> {
    let title = format!("{row}: {}, {}", outcome.title, outcome.metric.title());
    let style = |size: u32| TextStyle::from(("sans-serif", size).into_font()).color(&BLACK);
    panel.draw(&Text::new(title, (8, 12), style(15)))?;
    let spreads = outcome.contestants.iter().map(|one| Spread::of(one.figures(outcome.metric)));
    let spreads: Vec<_> = spreads.collect();
    let most = spreads.iter().flatten().map(|spread| spread.most).fold(0.0, f64::max);
    let right = |figure: f64| BARS.0 + pixels(figure / most * f64::from(BARS.1 - BARS.0));
    let mut top = i32::try_from(HEAD_HEIGHT)?;
    for (contestant, spread) in outcome.contestants.iter().zip(spreads) {
        let bottom = top + i32::try_from(BAR_HEIGHT)? - 4;
        panel.draw(&Text::new(contestant.name.clone(), (16, top + 2), style(13)))?;
        if let Some(spread) = spread {
            let colour = if contestant.name.starts_with("tamis") { OWN } else { PEER };
            let bar = [(BARS.0, top), (right(spread.median), bottom)];
            panel.draw(&Rectangle::new(bar, colour.filled()))?;
            let middle = i32::midpoint(top, bottom);
            let whisker = [(right(spread.least), middle), (right(spread.most), middle)];
            panel.draw(&PathElement::new(whisker, BLACK.stroke_width(1)))?;
            let figures = spread.show(outcome.metric.digits());
            panel.draw(&Text::new(figures, (BARS.1 + 10, top + 2), style(13)))?;
        }
        top = bottom + 4;
    }
    Ok(())
}

/// Whole pixels of a length within the picture.
#[allow(clippy::cast_possible_truncation, reason = "no length is beyond the width")]
fn pixels(length: f64) -> i32 {
    length as i32
}
