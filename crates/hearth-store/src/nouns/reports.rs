//! What users report to whoever runs the server: rooms, events, other users.

use crate::{StoreError, Tx, UserNum};

/// So many reports of one user are kept; the oldest go first.
const MOST: i64 = 1000;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who reports.
    pub reporter: UserNum,
    /// When, in milliseconds since the epoch.
    pub ts: i64,
    /// The id of what is reported: a user, or a room.
    pub subject: String,
    /// The event in that room, if it is about one.
    pub event_id: Option<String>,
    /// Why.
    pub reason: String,
}

/// Reports, seen from a transaction.
pub struct Reports<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Reports of local users.
    pub fn reports(&mut self) -> Reports<'_, 'c> {
        Reports { tx: self }
    }
}

impl Reports<'_, '_> {
    /// Keeps a report. The caller holds the reporter's lock.
    pub fn add(&mut self, report: &Report) -> Result<(), StoreError> {
        let reporter = report.reporter;
        let newest = self.tx.one(
            "SELECT COALESCE(MAX(num), 0) FROM reports WHERE reporter = $1",
            &[reporter.into()],
            |row| row.int(0),
        )?;
        let num = newest.unwrap_or(0) + 1;
        self.tx.exec(
            "INSERT INTO reports (reporter, num, ts, subject, event_id, reason) VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                reporter.into(),
                num.into(),
                report.ts.into(),
                report.subject.as_bytes().into(),
                report.event_id.as_deref().unwrap_or_default().as_bytes().into(),
                report.reason.as_bytes().into(),
            ],
        )?;
        self.tx
            .exec("DELETE FROM reports WHERE reporter = $1 AND num <= $2", &[reporter.into(), (num - MOST).into()])?;
        Ok(())
    }

    /// The newest reports, newest first.
    pub fn newest(&mut self, limit: i64) -> Result<Vec<Report>, StoreError> {
        self.tx.query(
            "SELECT reporter, ts, subject, event_id, reason FROM reports ORDER BY ts DESC, reporter, num DESC LIMIT $1",
            &[limit.into()],
            |row| {
                Ok(Report {
                    reporter: crate::StringNum(row.int(0)?),
                    ts: row.int(1)?,
                    subject: row.utf8(2)?.to_owned(),
                    event_id: Some(row.utf8(3)?.to_owned()).filter(|event_id| !event_id.is_empty()),
                    reason: row.utf8(4)?.to_owned(),
                })
            },
        )
    }
}
