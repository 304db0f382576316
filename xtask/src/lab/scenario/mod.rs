//! What the lab checks, by name.

use std::{future::Future, pin::Pin, time::Instant};

use super::{case::Case, inside::Lab, row::Row};

mod bad_input;
mod bare;
mod containers;
mod continuity;
mod lifecycle;
mod scripts;
mod tools;
mod traffic;
mod trust;

/// A check that needs more than one command.
pub(crate) type Story = for<'a> fn(&'a mut Lab) -> Pin<Box<dyn Future<Output = anyhow::Result<Row>> + 'a>>;

/// One named check.
#[derive(Clone, Debug)]
pub(crate) enum Scenario {
    Case(Box<Case>),
    Story(&'static str, Story),
}

impl Scenario {
    fn case(case: Case) -> Self {
        Self::Case(Box::new(case))
    }

    fn name(&self) -> &str {
        match self {
            Self::Case(case) => case.name,
            Self::Story(name, _) => name,
        }
    }

    /// Does it. What cannot even be done is a difference too.
    pub(crate) async fn run(&self, lab: &mut Lab) -> Row {
        let began = Instant::now();
        let row = match self {
            Self::Case(case) => case.run(lab).await,
            Self::Story(_, story) => story(lab).await,
        };
        let mut row = row.unwrap_or_else(|error| {
            let mut row = Row::new(self.name(), "");
            row.differs.push(format!("{error:#}"));
            row
        });
        row.name = self.name().to_owned();
        row.took = began.elapsed();
        row
    }
}

/// What the demo shows.
pub(crate) fn shown() -> Vec<Scenario> {
    traffic::scenarios()
}

/// Everything, with the daemon running.
fn all() -> Vec<Scenario> {
    let mut all = traffic::scenarios();
    all.extend(bad_input::scenarios());
    all.extend(containers::scenarios());
    all.extend(tools::scenarios());
    all.extend(trust::scenarios());
    all.extend(lifecycle::scenarios());
    all.extend(continuity::scenarios());
    all
}

/// Runs the lab suite; true when all passed.
///
/// # Errors
/// When the daemon cannot be started.
pub(crate) async fn run_suite(lab: &mut Lab, filter: Option<&str>) -> anyhow::Result<bool> {
    let bare = run(lab, bare::scenarios(), filter).await;
    lab.write_settings()?;
    lab.mount_small_disk()?;
    lab.start_daemon().await?;
    let mut rest = run(lab, all(), filter).await;
    if !rest.is_empty() {
        // Whatever was done: the log has to hold what the kernel saw of it.
        rest.extend(run(lab, vec![continuity::books()], None).await);
    }
    // After the books, because new ones begin with it.
    rest.extend(run(lab, vec![continuity::detach()], filter).await);
    let all_well = close(&[bare, rest].concat());
    if !all_well && let Some(daemon) = &lab.daemon {
        println!("the daemon's log ends:\n{}", daemon.log_tail());
    }
    Ok(all_well)
}

/// Runs what needs no daemon; true when all passed.
pub(crate) async fn run_bare(lab: &mut Lab) -> anyhow::Result<bool> {
    let rows = run(lab, bare::scenarios(), None).await;
    Ok(close(&rows))
}

async fn run(lab: &mut Lab, scenarios: Vec<Scenario>, filter: Option<&str>) -> Vec<Row> {
    let mut rows = Vec::new();
    for scenario in scenarios {
        if filter.is_some_and(|text| !scenario.name().contains(text)) {
            continue;
        }
        let row = scenario.run(lab).await;
        println!("{} {} ({} ms)", if row.ok() { "ok  " } else { "FAIL" }, row.name, row.took.as_millis());
        for difference in &row.differs {
            println!("       {difference}");
        }
        for detail in row.details.lines() {
            println!("       | {detail}");
        }
        rows.push(row);
    }
    rows
}

/// The closing line. Nothing run is nothing passed.
fn close(rows: &[Row]) -> bool {
    let passed = rows.iter().filter(|row| row.ok()).count();
    let failed = rows.len() - passed;
    println!("{passed} passed, {failed} failed");
    failed == 0 && passed > 0
}
