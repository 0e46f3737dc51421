//! A run as a picture: memory, latency and backlog, one above the other, over the same time.

use std::error::Error;
use std::path::Path;

use plotters::prelude::{
    BLACK, ChartBuilder, FontStyle, IntoDrawingArea, IntoFont, LineSeries, RGBColor, SVGBackend, ShapeStyle, WHITE,
};
use plotters::style::register_font;

use crate::samples::{Sample, Samples};

const SIZE: (u32, u32) = (1000, 840);
const BLUE: RGBColor = RGBColor(31, 119, 180);

/// The value of a sample that a curve shows.
type Measure = fn(&Sample) -> f64;

/// Writes the picture.
pub fn draw(file: &Path, samples: &Samples) -> Result<(), Box<dyn Error>> {
    // The sizes of the texts are measured with this font, even if the viewer of the picture takes another.
    register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| "the font is none")?;
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("{} invocations of one process", samples.invocations);
    let area = area.titled(&title, ("sans-serif", 22).into_font().color(&BLACK))?;
    let panels = area.split_evenly((4, 1));
    let curves: [(&str, Measure); 4] = [
        ("resident memory, MiB", |sample| number(sample.memory) / 1024.0),
        ("open sockets", |sample| number(sample.connections as u64)),
        ("time of an invocation, ms", |sample| sample.latency.as_secs_f64() * 1000.0),
        ("backlog, records", |sample| number(sample.backlog as u64)),
    ];
    for (panel, (name, of)) in panels.iter().zip(curves) {
        let points: Vec<(f64, f64)> =
            samples.all().iter().map(|sample| (sample.at.as_secs_f64(), of(sample))).collect();
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max);
        let width = most(&mut points.iter().map(|(time, _)| *time));
        let height = most(&mut points.iter().map(|(_, value)| *value)) * 1.1;
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 16))
            .margin(8)
            .margin_right(28)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..width, 0.0..height)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .y_labels(5)
            .max_light_lines(1)
            .draw()?;
        chart.draw_series(LineSeries::new(points, ShapeStyle::from(&BLUE).stroke_width(1)))?;
    }
    area.present()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more than a double holds")]
fn number(value: u64) -> f64 {
    value as f64
}
