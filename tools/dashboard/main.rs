//! The dashboard of `template.yaml` as a picture, with the metrics of a local run.
//!
//! `make dashboard` starts this program. It runs the binaries for a while against the servers of the test kit, through
//! a bad time of the database. It reads the metrics that they write as CloudWatch would, and draws the widgets where
//! the template has them. A second here stands for a widget's period there.

mod draw;
mod local_run;
mod numbers;
mod widgets;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use dsql_view_tools::given::exit_code;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run().await.map(|()| true), "The dashboard could not be drawn")
}

async fn run() -> Result<(), Box<dyn Error>> {
    let template = widgets::template()?;
    let widgets = widgets::read(&template)?;
    println!("Running the functions for {} seconds.", local_run::TIME.as_secs());
    let numbers = local_run::run().await?;
    let picture = Path::new("target/dashboard.png");
    draw::draw(picture, &template, &widgets, &numbers)?;
    println!("{} widgets are in {}.", widgets.len(), picture.display());
    Ok(())
}
