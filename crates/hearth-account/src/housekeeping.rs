//! What is done now and then: writing down where devices were last seen, forgetting what expired.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use hearth_store::{Device, DeviceNum, StoreError};

use crate::sessions::Sessions;
use crate::{Accounts, Authenticated};

/// How often.
const EVERY: Duration = Duration::from_secs(60);
/// Devices written down in one closure.
const BATCH: usize = 500;
/// Devices remembered between two rounds; more are not noted.
const MOST: usize = 100_000;
/// A device that was noted is not noted again for so long, unless its address changes.
const NOTE_EVERY_MS: i64 = 10_000;
/// Spent refresh tokens are remembered so long, to know thieves by.
const SPENT_LIFETIME_MS: i64 = 24 * 60 * 60 * 1000;

/// Where devices were last seen, not yet written down.
pub(crate) type LastSeen = HashMap<DeviceNum, (IpAddr, i64)>;

impl Accounts {
    /// Notes that a device was seen. Cheap: it is written down later.
    pub fn note_seen(&self, session: &Authenticated, address: IpAddr) {
        if let Some(device) = session.device {
            self.inner.sessions.note_seen(device, address, self.now_ms());
        }
    }

    /// Keeps house for ever: once at the start, then every minute. Before stopping, call [`Accounts::write_last_seen`].
    pub async fn keep_house(self) {
        let mut rounds = tokio::time::interval(EVERY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.keep_house_once().await {
                tracing::warn!(%error, "housekeeping of accounts failed");
            }
        }
    }

    /// One round.
    pub async fn keep_house_once(&self) -> Result<(), StoreError> {
        self.write_last_seen().await?;
        let now_ms = self.now_ms();
        let sweep = self.store().write(Vec::new(), move |tx| {
            tx.interactive().sweep(now_ms)?;
            tx.registrations().sweep(now_ms)?;
            tx.tokens().sweep(now_ms, now_ms - SPENT_LIFETIME_MS)
        });
        sweep.await?;
        self.resume_departures().await
    }

    /// Writes down where devices were last seen.
    pub async fn write_last_seen(&self) -> Result<(), StoreError> {
        let seen: Vec<_> = self.inner.sessions.take_last_seen();
        for batch in seen.chunks(BATCH) {
            let batch = batch.to_vec();
            self.store().write(Vec::new(), move |tx| tx.devices().seen(&batch)).await?;
        }
        Ok(())
    }
}

impl Sessions {
    fn note_seen(&self, device: DeviceNum, address: IpAddr, now_ms: i64) {
        let mut seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = seen.len() >= MOST;
        match seen.get_mut(&device) {
            Some((known, at_ms)) if *known == address && now_ms - *at_ms < NOTE_EVERY_MS => {}
            Some(noted) => *noted = (address, now_ms),
            None if is_full => {}
            None => {
                seen.insert(device, (address, now_ms));
            }
        }
    }

    fn take_last_seen(&self) -> Vec<(DeviceNum, String, i64)> {
        let seen = std::mem::take(&mut *self.last_seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.into_iter().map(|(device, (address, at_ms))| (device, address.to_string(), at_ms)).collect()
    }

    /// What is noted is newer than what is written down.
    pub(crate) fn add_last_seen(&self, device: &mut Device) {
        let seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, at_ms)) = seen.get(&device.num) {
            device.last_seen = Some((address.to_string(), *at_ms));
        }
    }
}
