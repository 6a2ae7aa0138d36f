//! A log of all summaries as CSV: one line for each check, whatever its status, for those who read such a file already.
//!
//! The first three columns are `timestamp,psi_score,drift_status`; more follow. Lines are on disk before a delivery counts as done. What was written and
//! not known to be so when the process died is found again by the ids at the file's end, so no line is there twice; a line that was cut is taken away.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::super::outbox::{LogLine, Outcome, Payload};
use super::Channel;

/// The columns.
const HEADER: [&str; 11] = [
    "timestamp",
    "psi_score",
    "drift_status",
    "monitor",
    "scope",
    "partition",
    "segment",
    "record_count",
    "drifted_features",
    "feature_count",
    "event_id",
];

/// Of the file's end, where lines may stand of which nobody knows that they were written: more than one commit has.
const TAIL_BYTES: u64 = 16 << 20;

/// The file.
pub struct CsvLog {
    path: PathBuf,
    file: Option<Open>,
}

struct Open {
    file: File,
    /// Ids of the last lines that stood there before: an earlier process may have written them without telling. Deliveries come in order, so once
    /// something new was written there are none of them any more.
    written_before: BTreeSet<String>,
}

impl CsvLog {
    /// The file at this path, made with its directory when there is something to write.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    fn write(&mut self, lines: &[LogLine]) -> io::Result<()> {
        // Not kept when something fails: then it is opened again, and looked at.
        let mut open = match self.file.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        let new: Vec<&LogLine> = lines.iter().filter(|line| !open.written_before.contains(&line.event_id)).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        for line in &new {
            writer.write_record(cells(line))?;
        }
        let text = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        open.file.write_all(&text)?;
        open.file.sync_data()?;
        if !new.is_empty() {
            open.written_before.clear();
        }
        self.file = Some(open);
        Ok(())
    }
}

impl Channel for CsvLog {
    fn deliver(&mut self, payload: &Payload) -> Outcome {
        let Payload::Log(lines) = payload else {
            return Outcome::Delivered;
        };
        match self.write(lines) {
            Ok(()) => Outcome::Delivered,
            Err(error) => Outcome::Retry {
                after: None,
                reason: format!("{}: {error}", self.path.display()),
            },
        }
    }
}

fn cells(line: &LogLine) -> [String; 11] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        line.timestamp.clone(),
        // The shortest text that reads back as the same number.
        format!("{}", line.psi_score),
        line.drift_status.clone(),
        line.monitor.clone(),
        line.scope.clone(),
        line.partition.map(|partition| partition.to_string()).unwrap_or_default(),
        text(&line.segment),
        line.record_count.to_string(),
        line.drifted_features.to_string(),
        line.feature_count.to_string(),
        line.event_id.clone(),
    ]
}

/// Opens the file at its end, behind a header and whole lines.
fn open(path: &Path) -> io::Result<Open> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let header = HEADER.join(",");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let length = file.metadata()?.len();
    let mut first = vec![0; header.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
    file.read_exact(&mut first)?;
    if !header.as_bytes().starts_with(&first) {
        return Err(io::Error::other("it has other columns than this log: move it away, or give another path"));
    }
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    (&mut file).take(TAIL_BYTES).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < tail.len() {
        tail.truncate(whole);
        file.set_len(start + u64::try_from(whole).unwrap_or(0))?;
    }
    file.seek(SeekFrom::End(0))?;
    if start == 0 && tail.is_empty() {
        file.write_all((header + "\n").as_bytes())?;
        file.sync_all()?;
    }
    let written_before = ids(&tail);
    Ok(Open { file, written_before })
}

/// The ids of lines: what is behind the last comma. An id is percent-encoded, so it has neither comma nor quote.
fn ids(tail: &[u8]) -> BTreeSet<String> {
    let id = |line: &[u8]| {
        let at = line.iter().rposition(|byte| *byte == b',')? + 1;
        Some(String::from_utf8_lossy(&line[at..]).trim_end().to_owned())
    };
    tail.split(|byte| *byte == b'\n').filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> LogLine {
        LogLine {
            timestamp: "2026-11-28T20:51:27Z".to_owned(),
            psi_score: 0.25,
            drift_status: "drift".to_owned(),
            monitor: "default".to_owned(),
            scope: "partition".to_owned(),
            partition: Some(0),
            segment: Some("say=\"a,b\"".to_owned()),
            record_count: number,
            drifted_features: 1,
            feature_count: 2,
            event_id: format!("app/default/t/0/partition/say%3D/%2A/{number}/abc"),
        }
    }

    fn deliver(log: &mut CsvLog, numbers: &[u64]) -> Outcome {
        log.deliver(&Payload::Log(numbers.iter().map(|number| line(*number)).collect()))
    }

    /// `record_count` of all lines, as a reader of RFC 4180 sees them.
    fn numbers(path: &Path) -> Vec<u64> {
        let mut reader = csv::Reader::from_path(path).unwrap();
        let columns: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        assert_eq!(columns, HEADER);
        let records = reader.records().map(Result::unwrap);
        records
            .map(|record| {
                assert_eq!(
                    (&record[0], &record[1], &record[2], &record[6]),
                    ("2026-11-28T20:51:27Z", "0.25", "drift", "say=\"a,b\"")
                );
                record[7].parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn lines_are_appended_behind_one_header_across_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/psi_drift_log.csv");
        assert_eq!(deliver(&mut CsvLog::new(path.clone()), &[1, 2]), Outcome::Delivered);
        assert_eq!(deliver(&mut CsvLog::new(path.clone()), &[3]), Outcome::Delivered);
        assert_eq!(numbers(&path), [1, 2, 3]);
    }

    #[test]
    fn what_was_written_before_a_crash_is_not_written_again_and_a_cut_line_is_whole_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.csv");
        assert_eq!(deliver(&mut CsvLog::new(path.clone()), &[1, 2, 3]), Outcome::Delivered);
        let length = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 7).unwrap();
        let mut log = CsvLog::new(path.clone());
        assert_eq!(deliver(&mut log, &[1, 2, 3, 4]), Outcome::Delivered);
        assert_eq!(deliver(&mut log, &[5]), Outcome::Delivered);
        assert_eq!(numbers(&path), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_file_of_other_columns_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.csv");
        std::fs::write(&path, "timestamp,psi_score,drift_status\n1,2,3\n").unwrap();
        let outcome = deliver(&mut CsvLog::new(path.clone()), &[1]);
        assert!(
            matches!(&outcome, Outcome::Retry { reason, .. } if reason.contains("other columns")),
            "{outcome:?}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "timestamp,psi_score,drift_status\n1,2,3\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(deliver(&mut CsvLog::new(path.clone()), &[1]), Outcome::Delivered);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let mut log = CsvLog::new(directory.path().join("file/log.csv"));
        assert!(matches!(deliver(&mut log, &[1]), Outcome::Retry { .. }));
    }
}
