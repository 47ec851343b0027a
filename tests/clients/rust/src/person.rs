//! A signed-in client: what its sync brings, and the messages it sends.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    Client, Room,
    config::{RequestConfig, SyncSettings},
    deserialized_responses::TimelineEvent,
    room::MessagesOptions,
    ruma::{
        OwnedRoomId, OwnedUserId, RoomId, TransactionId, UInt,
        api::client::{account::register, filter::FilterDefinition, uiaa},
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, SyncMessageLikeEvent,
            room::message::{MessageType, RoomMessageEventContent},
        },
    },
};
use tokio::task::JoinHandle;

use crate::server::{self, until};

const PASSWORD: &str = "correct horse battery staple";

/// What the sync of a client brought, in the order of its arrival.
#[derive(Default)]
struct Heard {
    /// Messages of others.
    messages: Vec<String>,
    event_ids: HashSet<String>,
    repeated: Vec<String>,
}

pub struct Person {
    pub client: Client,
    pub user_id: OwnedUserId,
    pub sent: Vec<String>,
    heard: Arc<Mutex<Heard>>,
    sync: JoinHandle<()>,
}

impl Person {
    pub async fn register(name: &str) -> Result<Self> {
        let age = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut request = register::v3::Request::new();
        request.username = Some(format!("{name}_{}", age.as_millis()));
        request.password = Some(PASSWORD.to_owned());
        request.auth = Some(uiaa::AuthData::Dummy(uiaa::Dummy::new()));
        request.inhibit_login = true;
        let client = new_client().await?;
        let user_id = client.matrix_auth().register(request).await?.user_id;
        Self::login(&user_id).await
    }

    /// A new device of the user, which has synced once and goes on syncing.
    async fn login(user_id: &OwnedUserId) -> Result<Self> {
        let client = login(user_id).await?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let sync = tokio::spawn(sync_forever(client.clone(), heard.clone()));
        Ok(Self { client, user_id: user_id.clone(), sent: Vec::new(), heard, sync })
    }

    pub fn room(&self, room_id: &RoomId) -> Result<Room> {
        self.client.get_room(room_id).with_context(|| format!("{} does not know the room", self.user_id))
    }

    /// Sends, and sends again under the same transaction id until the server has answered.
    pub async fn say(&mut self, room_id: &RoomId, body: &str) -> Result<()> {
        let room = self.room(room_id)?;
        let content = RoomMessageEventContent::text_plain(body);
        let txn_id = TransactionId::new();
        until("the message is acknowledged", || async {
            room.send(content.clone()).with_transaction_id(txn_id.clone()).await.is_ok()
        })
        .await?;
        self.sent.push(body.to_owned());
        Ok(())
    }

    /// Waits until all that `speaker` ever said is here, and finds it complete, in order and without repetition.
    pub async fn has_heard(&self, speaker: &Self) -> Result<()> {
        until(&format!("{} has heard all of {}", self.user_id, speaker.user_id), || async {
            self.heard.lock().unwrap().messages.len() >= speaker.sent.len()
        })
        .await?;
        let heard = self.heard.lock().unwrap();
        ensure!(heard.messages == speaker.sent, "heard {:#?}\nbut sent were {:#?}", heard.messages, speaker.sent);
        ensure!(heard.repeated.is_empty(), "twice in /sync: {:?}", heard.repeated);
        Ok(())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.sync.abort();
    }
}

/// All messages of the room as a new device finds them, oldest first.
pub async fn page_back(user_id: &OwnedUserId, room_id: &OwnedRoomId) -> Result<Vec<String>> {
    let client = login(user_id).await?;
    client.sync_once(SyncSettings::new()).await?;
    let room = client.get_room(room_id).context("a new device does not see the room")?;
    let (mut newest_first, mut from, mut reached_start) = (Vec::new(), None, false);
    loop {
        let mut page = MessagesOptions::backward().from(from.as_deref());
        page.limit = UInt::from(7_u8);
        let page = room.messages(page).await?;
        for event in &page.chunk {
            reached_start |= event_field(event, "type").as_deref() == Some("m.room.create");
            newest_first.extend(message(event).map(|(_, body)| body));
        }
        from = page.end;
        if from.is_none() {
            break;
        }
    }
    ensure!(reached_start, "paging back does not end at the start of the room");
    newest_first.reverse();
    Ok(newest_first)
}

async fn new_client() -> Result<Client> {
    // The flow itself decides when to try again.
    let once = RequestConfig::new().disable_retry();
    Ok(Client::builder().homeserver_url(server::url()?).request_config(once).build().await?)
}

async fn login(user_id: &OwnedUserId) -> Result<Client> {
    let client = new_client().await?;
    client.matrix_auth().login_username(user_id, PASSWORD).await?;
    Ok(client)
}

/// Syncs until the task is aborted. While the server is down the position stays, as it would in an app.
async fn sync_forever(client: Client, heard: Arc<Mutex<Heard>>) {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(UInt::from(50_u8));
    let settings = SyncSettings::new().timeout(Duration::from_secs(30)).filter(filter.into());
    loop {
        let Ok(response) = client.sync_once(settings.clone()).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut heard = heard.lock().unwrap();
        for event in response.rooms.joined.values().flat_map(|room| &room.timeline.events) {
            let Some(event_id) = event.event_id().map(|id| id.to_string()) else { continue };
            if !heard.event_ids.insert(event_id.clone()) {
                heard.repeated.push(event_id);
            }
            if let Some((_, body)) = message(event).filter(|(sender, _)| Some(&**sender) != client.user_id()) {
                heard.messages.push(body);
            }
        }
    }
}

/// Sender and text of a message; nothing for other events.
fn message(event: &TimelineEvent) -> Option<(OwnedUserId, String)> {
    let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(SyncMessageLikeEvent::Original(event))) =
        event.raw().deserialize().ok()?
    else {
        return None;
    };
    let MessageType::Text(text) = event.content.msgtype else { return None };
    Some((event.sender, text.body))
}

fn event_field(event: &TimelineEvent, field: &str) -> Option<String> {
    event.raw().get_field(field).ok().flatten()
}
