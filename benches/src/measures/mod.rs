//! The parts of a run: each starts servers of its own, measures turn by turn, and notes its figures.

mod accept;

mod cluster;

mod costs;

mod disk;

mod drain;

mod generators;

mod growth;

mod latency;

mod memory;

mod monitoring;

mod names;

mod searches;

mod profiles;

mod recovery;

mod rivals;

mod scale;

mod turns;

mod whole;

use anyhow::Result;
use clap::ValueEnum;

use crate::goals;
use crate::report::{Report, say};
use rivals::Rivals;
use scale::Scale;
use turns::Turns;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Smaller numbers of everything, in about five minutes
    #[arg(long)]
    quick: bool,
    /// Weir alone: the other systems need npm, Python and cargo
    #[arg(long)]
    no_peers: bool,
    /// Say what parts there are
    #[arg(long)]
    list: bool,
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Disk,
    Accept,
    Generators,
    Latency,
    Drain,
    Whole,
    Memory,
    Recovery,
    Growth,
    Cluster,
    Costs,
    Profiles,
    Monitoring,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Accept => "accept",
            Self::Generators => "generators",
            Self::Latency => "latency",
            Self::Drain => "drain",
            Self::Whole => "whole",
            Self::Memory => "memory",
            Self::Recovery => "recovery",
            Self::Growth => "growth",
            Self::Cluster => "cluster",
            Self::Costs => "costs",
            Self::Profiles => "profiles",
            Self::Monitoring => "monitoring",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Disk => disk::ABOUT,
            Self::Accept => accept::ABOUT,
            Self::Generators => generators::ABOUT,
            Self::Latency => latency::ABOUT,
            Self::Drain => drain::ABOUT,
            Self::Whole => whole::ABOUT,
            Self::Memory => memory::ABOUT,
            Self::Recovery => recovery::ABOUT,
            Self::Growth => growth::ABOUT,
            Self::Cluster => cluster::ABOUT,
            Self::Costs => costs::ABOUT,
            Self::Profiles => profiles::ABOUT,
            Self::Monitoring => monitoring::ABOUT,
        }
    }

    async fn measure(self, report: &mut Report, scale: &Scale, rivals: &mut Rivals) -> Result<()> {
        match self {
            Self::Disk => disk::measure(report, scale).await,
            Self::Accept => accept::measure(report, scale, rivals).await,
            Self::Generators => generators::measure(report, scale).await,
            Self::Latency => latency::measure(report, scale).await,
            Self::Drain => drain::measure(report, scale, rivals).await,
            Self::Whole => whole::measure(report, scale, rivals).await,
            Self::Memory => memory::measure(report, scale).await,
            Self::Recovery => recovery::measure(report, scale).await,
            Self::Growth => growth::measure(report, scale).await,
            Self::Cluster => cluster::measure(report, scale).await,
            Self::Costs => costs::measure(report, scale).await,
            Self::Profiles => profiles::measure(report, scale).await,
            Self::Monitoring => monitoring::measure(report, scale).await,
        }
    }

    /// Whether other systems are measured beside Weir.
    fn has_rivals(self) -> bool {
        matches!(self, Self::Accept | Self::Drain | Self::Whole)
    }
}

impl Run {
    pub(crate) async fn run(self) -> Result<()> {
        if self.list {
            for part in Part::value_variants() {
                say(format_args!("{:<11} {}", part.name(), part.about()));
            }
            return Ok(());
        }
        let parts: Vec<Part> = Part::value_variants()
            .iter()
            .copied()
            .filter(|part| self.only.is_empty() || self.only.contains(part))
            .collect();
        let scale = if self.quick { Scale::quick() } else { Scale::full() };
        let mut report = Report::new(self.quick, scale.to_string(), parts.len());
        let mut rivals = Rivals::none();
        if !self.no_peers && parts.iter().any(|part| part.has_rivals()) {
            rivals = Rivals::install(&mut report).await;
        }
        for part in parts {
            report.begin(part.name(), part.about().to_owned());
            if let Err(error) = part.measure(&mut report, &scale, &mut rivals).await {
                report.fail(part.name(), &error);
            }
            report.end();
        }
        report.verdicts = goals::judge(&report);
        report.finish()
    }
}
