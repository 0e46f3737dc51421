//! The widgets with their curves, as a picture.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    AreaSeries, BLACK, BitMapBackend, ChartBuilder, Circle, Color, DrawingArea, FontStyle, IntoDrawingArea, IntoFont,
    LineSeries, PathElement, RGBColor, Rectangle, SeriesLabelPosition, Text, WHITE,
};
use plotters::style::{TextStyle, register_font};
use serde_norway::Value;

use crate::local_run::TIME;
use crate::numbers::Numbers;
use crate::widgets::{Curve, Shows, VIEW, Widget, rings};

/// The size in pixels of one step of the dashboard's grid.
const STEP: (u32, u32) = (58, 44);
const GAP: i32 = 6;

const FONT: &str = "sans-serif";
const GREY: RGBColor = RGBColor(90, 90, 90);
const BACKGROUND: RGBColor = RGBColor(242, 243, 243);
const GREEN: RGBColor = RGBColor(44, 160, 44);
const RED: RGBColor = RGBColor(214, 39, 40);
const COLOURS: [RGBColor; 5] = [RGBColor(31, 119, 180), RGBColor(255, 127, 14), GREEN, RED, RGBColor(148, 103, 189)];

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A curve with its name.
type Line = (String, Vec<(f64, f64)>);

pub fn draw(picture: &Path, template: &Value, widgets: &[Widget], numbers: &Numbers) -> Result<(), Box<dyn Error>> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).map_err(|_| "the font is none")?;
    let end = |of: fn(&Widget) -> u32| widgets.iter().map(of).max().unwrap_or_default();
    let width = end(|widget| widget.place.0 + widget.size.0) * STEP.0;
    let height = end(|widget| widget.place.1 + widget.size.1) * STEP.1;
    let page = BitMapBackend::new(picture, (width, height)).into_drawing_area();
    page.fill(&BACKGROUND)?;
    for widget in widgets {
        let place = (widget.place.0 * STEP.0, widget.place.1 * STEP.1);
        let area = page.clone().shrink(place, (widget.size.0 * STEP.0, widget.size.1 * STEP.1));
        let area = area.margin(GAP, GAP, GAP, GAP);
        area.fill(&WHITE)?;
        area.draw(&Text::new(widget.title.clone(), (12, 10), text(18, BLACK)))?;
        let area = area.margin(32, 8, 8, 16);
        match &widget.shows {
            Shows::Curves { unit, stacked, curves } => {
                let lines: Vec<Line> = curves.iter().flat_map(|curve| lines(curve, numbers)).collect();
                curves_of(&area, unit, *stacked, &lines)?;
            }
            Shows::Alarms(alarms) => alarms_of(&area, template, alarms, numbers)?,
        }
    }
    page.present()?;
    Ok(())
}

fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    let mut text = TextStyle::from((FONT, size).into_font());
    text.color = colour.to_backend_color();
    text
}

/// The same colour with much white. Nothing of what lies under it shows through.
fn light(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let lighter = |part: u8| u8::MAX - (u8::MAX - part) / 2;
    RGBColor(lighter(red), lighter(green), lighter(blue))
}

fn lines(curve: &Curve, numbers: &Numbers) -> Vec<Line> {
    match curve {
        Curve::One { metric, statistic, label } => vec![(label.clone(), numbers.by_second(metric, statistic))],
        Curve::ByTable { name, statistic } => {
            let metrics = numbers.by_second_dimension(name, VIEW).into_iter();
            metrics.map(|metric| (metric.of[1].clone(), numbers.by_second(&metric, statistic))).collect()
        }
    }
}

fn curves_of(area: &Area<'_>, unit: &str, stacked: bool, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    let mut lines = lines.to_vec();
    if stacked {
        for place in 1..lines.len() {
            let below = lines[place - 1].1.clone();
            for (at, value) in &mut lines[place].1 {
                *value += below.iter().find(|(under, _)| under.total_cmp(at).is_eq()).map_or(0.0, |(_, value)| *value);
            }
        }
    }
    let highest = lines.iter().flat_map(|(_, points)| points).map(|(_, value)| *value).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .x_label_area_size(22)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..TIME.as_secs_f64() + 1.0, 0.0..if highest > 0.0 { highest * 1.7 } else { 1.0 })?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_label_formatter(&|second| format!("{second:.0} s"))
        .y_label_formatter(&|value| if highest < 3.0 { format!("{value:.1}") } else { format!("{value:.0}") })
        .y_desc(unit)
        .y_labels(5)
        .label_style(text(13, GREY))
        .axis_desc_style(text(13, GREY))
        .draw()?;
    let mut in_order: Vec<(usize, &Line)> = lines.iter().enumerate().collect();
    if stacked {
        // The highest curve of a stack is drawn first, under the others.
        in_order.reverse();
    }
    for (place, (label, points)) in in_order {
        let colour = COLOURS[place % COLOURS.len()];
        let series = if stacked {
            chart.draw_series(AreaSeries::new(points.iter().copied(), 0.0, light(colour)).border_style(colour))?
        } else {
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, colour.filled())))?;
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
        };
        series
            .label(label.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(text(14, BLACK))
        .draw()?;
    Ok(())
}

fn alarms_of(area: &Area<'_>, template: &Value, alarms: &[String], numbers: &Numbers) -> Result<(), Box<dyn Error>> {
    let rows = i32::try_from(alarms.len().div_ceil(2))?;
    for (place, alarm) in (0..).zip(alarms) {
        let (x, y) = (16 + place / rows * 330, 4 + place % rows * 38);
        let (colour, state) = match rings(template, alarm, numbers) {
            Some(true) => (RED, "in alarm"),
            Some(false) => (GREEN, "OK"),
            None => (GREY, "no numbers"),
        };
        area.draw(&Rectangle::new([(x, y), (x + 6, y + 30)], colour.filled()))?;
        area.draw(&Text::new(alarm.clone(), (x + 16, y), text(16, BLACK)))?;
        area.draw(&Text::new(state, (x + 16, y + 17), text(13, colour)))?;
    }
    Ok(())
}
