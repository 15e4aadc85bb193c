//! The distribution of latencies as a picture: percentiles to the right, with the tail as wide as the rest, and time upwards.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, SVGBackend,
    SeriesLabelPosition, WHITE,
};

use super::Measured;
use crate::bench::look::{COLORS, FONT, GRID, TITLE_FONT};
use crate::bench::samples::Samples;
use crate::status::human;

/// In pixels.
const SIZE: (u32, u32) = (860, 480);
const MARGIN: u32 = 18;
const BELOW: u32 = 44;
const LEFT: u32 = 76;
const LEGEND: i32 = 22;
const LINE_WIDTH: u32 = 2;

/// Steps in each half of what is left to 100 %.
const TICKS_PER_HALF: u32 = 8;

/// A line: how rare a latency is, as 1 of so many, and the latency in microseconds.
type Points = Vec<(f64, f64)>;

/// Draws the latencies of all targets into one file. The error is one line.
pub(in crate::bench) fn write(path: &Path, measured: &[Measured]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("--chart {}: {error}", path.display());
    let svg = draw(measured).map_err(|error| failed(&error))?;
    fs::write(path, svg).map_err(|error| failed(&error))
}

fn draw(measured: &[Measured]) -> Result<String, Box<dyn Error>> {
    let lines: Vec<Points> = measured
        .iter()
        .map(|target| points(&target.total.tally.latency))
        .collect();
    let all = || lines.iter().flatten();
    let rarest = all().map(|(rare, _)| *rare).fold(10.0, f64::max);
    let least = all().map(|(_, time)| *time).fold(f64::MAX, f64::min);
    let most = all().map(|(_, time)| *time).fold(0.0, f64::max);
    if most <= 0.0 {
        return Err("there is no latency to be drawn".into());
    }
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        page.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&page)
            .caption("latency by percentile", TITLE_FONT)
            .margin(MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(
                (1.0..rarest).log_scale(),
                (least * 0.8..most * 1.25).log_scale(),
            )?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style(FONT)
            .x_desc("share of the requests that took no longer")
            .x_label_formatter(&|rare| percentile(*rare))
            .y_label_formatter(&|time| human::micros(Some(*time)))
            .draw()?;
        for ((points, target), color) in lines.iter().zip(measured).zip(COLORS) {
            let style = color.stroke_width(LINE_WIDTH);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(target.target.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + LEGEND, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(FONT)
            .background_style(WHITE)
            .border_style(BLACK.mix(0.2))
            .draw()?;
        page.present()?;
    }
    Ok(svg)
}

fn points(samples: &Samples) -> Points {
    let histogram = samples.histogram();
    let steps = histogram.iter_quantiles(TICKS_PER_HALF);
    let count = samples.count() as f64;
    let point = |step: hdrhistogram::iterators::IterationValue<u64>| {
        let left = 1.0 - step.quantile_iterated_to();
        let value = step.value_iterated_to().min(histogram.max());
        // Nothing is rarer than one of all.
        ((1.0 / left).min(count), value as f64 / 1e3)
    };
    steps.map(point).collect()
}

/// `99.9 %` for one of 1,000.
fn percentile(rare: f64) -> String {
    let percent = 100.0 - 100.0 / rare;
    let digits = (rare.log10().round() - 2.0).clamp(0.0, 9.0);
    #[allow(
        clippy::cast_sign_loss,
        reason = "it was made a number from 0 to 9 just above"
    )]
    let digits = digits as usize;
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::tally::Figures;
    use crate::bench::workload::Era;

    fn measured(target: &str, count: u64) -> Measured {
        let mut figures = Figures::default();
        for micros in 1..=count {
            figures.tally.latency.add(Duration::from_micros(micros));
        }
        let mut measured = Measured::new(target.to_owned(), Era::Modern, 1);
        measured.add(figures);
        measured
    }

    #[test]
    fn a_line_for_each_target_is_drawn() {
        let svg = draw(&[measured("a<b", 10_000), measured("second", 100)]).unwrap();
        for part in [
            "<svg ", "a&lt;b", "second", "99.9 %", "#1A7F5A", "#C45820", " ms",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(draw(&[measured("none", 0)]).is_err());
        assert!(draw(&[measured("one", 1)]).unwrap().contains("one"));
    }

    #[test]
    fn percentiles_have_the_digits_that_they_need() {
        for (rare, text) in [
            (1.0, "0 %"),
            (10.0, "90 %"),
            (100.0, "99 %"),
            (1e3, "99.9 %"),
            (1e5, "99.999 %"),
        ] {
            assert_eq!(percentile(rare), text);
        }
    }
}
