//! Logs on standard error, metrics for Prometheus.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

pub use crate::log_writer::LogGuard;
use crate::log_writer::LogWriter;
use crate::settings::{LogFormat, Logging};

/// Starts logging, for the whole process, until the guard is dropped. A second call changes nothing.
pub fn start_logging(logging: &Logging) -> std::io::Result<LogGuard> {
    let writer = LogWriter::start(std::io::stderr())?;
    let guard = writer.guard();
    let filter = EnvFilter::new(logging.level.as_str());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // An error means that logging has been started.
    let _ = match logging.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("without a message");
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic: {message}");
    }));
    Ok(guard)
}

/// Bounds of the latency histograms, in seconds.
const LATENCY_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Bounds of the histograms that count things.
const COUNTS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How often what was recorded is put into its buckets; until then each value takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The process's metrics. Those of several servers in one process (tests) flow together.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts recording, once for the process.
    pub fn of_process() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_SECONDS)
                .and_then(|builder| builder.set_buckets(&COUNTS));
            let recorder = builder.unwrap_or_default().build_recorder();
            let handle = recorder.handle();
            // An error means that a program around us records already; then our page stays empty.
            let _ = metrics::set_global_recorder(recorder);
            handle
        });
        Self(handle.clone())
    }

    /// The page, in Prometheus' text format, with these measures of the moment.
    pub fn page(&self, of_the_moment: &[Measure]) -> String {
        record_process();
        let mut page = self.0.render();
        of_the_moment.iter().for_each(|measure| measure.write(&mut page));
        page
    }

    /// Puts what was recorded into its buckets, again and again.
    pub async fn keep_up(self) {
        let mut interval = tokio::time::interval(UPKEEP);
        loop {
            interval.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// A measure whose labels come and go. A recorder would keep each of them for ever, so it is written when the page is.
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// The name of its label.
    pub label: &'static str,
    /// By label.
    pub values: Vec<(String, f64)>,
}

impl Measure {
    fn write(&self, page: &mut String) {
        let Self { name, help, label, values } = self;
        page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (of, value) in values {
            // Strangers choose these names.
            let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            page.push_str(&format!("{name}{{{label}=\"{of}\"}} {value}\n"));
        }
        page.push('\n');
    }
}

/// What the system says about this process.
fn record_process() {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| -> Option<f64> {
            status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
        };
        for (name, metric) in [("VmRSS:", "process_resident_memory_bytes"), ("VmSize:", "process_virtual_memory_bytes")]
        {
            if let Some(kib) = field(name) {
                metrics::gauge!(metric).set(kib * 1024.0);
            }
        }
        if let Some(threads) = field("Threads:") {
            metrics::gauge!("process_threads").set(threads);
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metrics::gauge!("process_open_fds").set(files.count() as f64);
    }
}
