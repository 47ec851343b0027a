-- The first schema. Macros that the migration runner rewrites per engine:
--   id_key()         64-bit integer primary key (the rowid on SQLite)
--   bytes()          byte string
--   counter(NAME)    a source of numbers
--   without_rowid()  the primary key is the table (SQLite), nothing on PostgreSQL
-- Strings that strangers choose (ids, types, state keys, JSON) are byte strings: PostgreSQL's text cannot hold NUL.
-- Numbers of users, servers, event types and state keys are all numbers of `strings`.

CREATE TABLE clock (id id_key(), position BIGINT NOT NULL);
INSERT INTO clock (id, position) VALUES (1, 0);

-- Whose database this is: one row, written at the first start.
CREATE TABLE identity (id id_key(), server_name bytes() NOT NULL);

-- Numbers are handed out in blocks of 1000: a sequence with that step on PostgreSQL (a rolled-back block is lost there,
-- not reused), a row of this table on SQLite.
CREATE TABLE counters (name TEXT PRIMARY KEY, next_free BIGINT NOT NULL);
counter(strings);
counter(rooms);
counter(events);
counter(snapshots);
counter(trie_nodes);
counter(devices);
counter(staged);
counter(blobs);

CREATE TABLE strings (num id_key(), text bytes() NOT NULL UNIQUE);

-- ---------------------------------------------------------------- rooms

-- What never changes about a room.
CREATE TABLE rooms (
    num        id_key(),
    room_id    bytes() NOT NULL UNIQUE,
    version    TEXT NOT NULL,
    creator    BIGINT NOT NULL,
    room_type  bytes(),
    federate   BIGINT NOT NULL,
    created_ts BIGINT NOT NULL,
    hearsay    BIGINT NOT NULL   -- 1 while invites and knocks alone tell of the room: then all of this may be wrong
);

-- What changes with nearly every event.
CREATE TABLE room_tips (
    room                id_key(),
    extremities         bytes() NOT NULL,  -- forward extremities, 8 bytes big-endian each, newest first
    depth               BIGINT NOT NULL,
    room_order          BIGINT NOT NULL,
    snapshot            BIGINT NOT NULL,   -- current state, resolved over all extremities
    last_position       BIGINT NOT NULL,   -- of the newest event with a position
    last_local_position BIGINT NOT NULL,   -- not before the newest event that we send to other servers
    joined              BIGINT NOT NULL,
    invited             BIGINT NOT NULL,
    knocked             BIGINT NOT NULL,
    joined_local        BIGINT NOT NULL,
    unread              BIGINT NOT NULL,   -- running count of what the default push rules notify for, main timeline
    policy              BIGINT NOT NULL,   -- the m.room.policy event of the current state, or 0
    -- -1 while a part of the state is not here (partial_rooms), then the position at which all of it was; 0: always
    partial_state       BIGINT NOT NULL
);

CREATE TABLE event_ids (
    num      id_key(),
    room     BIGINT NOT NULL,  -- where it was heard of: in one room what another says of an id is nothing
    event_id bytes() NOT NULL,
    UNIQUE (event_id, room)
);

CREATE TABLE events (
    num              id_key(),
    room             BIGINT NOT NULL,
    kind             BIGINT NOT NULL,   -- event type
    state_key        BIGINT,
    sender           BIGINT NOT NULL,
    standing         BIGINT NOT NULL,   -- see Standing
    moved            BIGINT NOT NULL,   -- position of the last change of standing or redaction
    position         BIGINT,            -- arrival; none for outliers and history
    room_order       BIGINT NOT NULL,
    depth            BIGINT NOT NULL,
    origin_server_ts BIGINT NOT NULL,
    snapshot_before  BIGINT,
    snapshot_after   BIGINT,            -- of state events: the state after it on its own branch
    visibility       BIGINT NOT NULL,   -- history visibility at the event
    redacted_by      BIGINT,
    thread           BIGINT,            -- root of the thread it belongs to, over whatever relates to a reply, too
    outcome          BIGINT NOT NULL,   -- what the default push rules make of it, see Outcome; 0: they don't notify
    unread           BIGINT NOT NULL,   -- running count at it, main timeline
    unread_thread    BIGINT NOT NULL,   -- running count at it, its thread
    txn_device       BIGINT,
    txn_id           bytes(),
    outbound         BIGINT NOT NULL DEFAULT 0  -- 1: it is for us to send it to the other servers in the room
);
CREATE INDEX events_outbound ON events (room, position) WHERE outbound = 1;
CREATE INDEX events_by_position ON events (room, position) WHERE position IS NOT NULL;
CREATE INDEX events_by_order ON events (room, room_order, num);
CREATE INDEX events_by_time ON events (room, origin_server_ts, room_order, num);
CREATE INDEX events_by_txn ON events (txn_device, txn_id, room) WHERE txn_device IS NOT NULL;
CREATE INDEX events_of_thread ON events (thread, position) WHERE thread IS NOT NULL;

CREATE TABLE event_json (num id_key(), json bytes() NOT NULL);

CREATE TABLE event_edges (
    parent BIGINT NOT NULL,
    event  BIGINT NOT NULL,
    PRIMARY KEY (parent, event)
) without_rowid();

-- Auth edges of state events: auth chains run through these only, also those of a room's state.
CREATE TABLE event_auth (
    event BIGINT NOT NULL,
    auth  BIGINT NOT NULL,
    PRIMARY KEY (event, auth)
) without_rowid();

CREATE TABLE relations (
    parent BIGINT NOT NULL,
    rel    BIGINT NOT NULL,
    child  BIGINT NOT NULL,
    room   BIGINT NOT NULL,
    PRIMARY KEY (parent, rel, child)
) without_rowid();

-- Redactions that arrived before their target, or that wait for it.
CREATE TABLE redactions (
    target BIGINT NOT NULL,
    event  BIGINT NOT NULL,
    PRIMARY KEY (target, event)
) without_rowid();

-- Remote PDUs accepted for work and not yet appended.
CREATE TABLE staged (
    num         id_key(),
    room        BIGINT NOT NULL,
    origin      BIGINT NOT NULL,
    event_id    bytes() NOT NULL,
    json        bytes() NOT NULL,
    received_ts BIGINT NOT NULL,
    verified    BIGINT NOT NULL,  -- 1 once its signatures were checked
    UNIQUE (event_id, room)
);
CREATE INDEX staged_of_room ON staged (room, num);

-- Events that were rejected for want of an auth event: judged anew when it comes.
CREATE TABLE awaited_auth (
    auth  BIGINT NOT NULL,
    event BIGINT NOT NULL,
    PRIMARY KEY (auth, event)
) without_rowid();
CREATE INDEX awaited_auth_of_event ON awaited_auth (event);

-- Gaps behind an event: what was missing before it when it came. A timeline is cut there, also when history fills it later.
CREATE TABLE gaps (
    room    BIGINT NOT NULL,
    event   BIGINT NOT NULL,
    missing BIGINT NOT NULL,
    PRIMARY KEY (room, event, missing)
) without_rowid();

-- ---------------------------------------------------------------- state

CREATE TABLE snapshots (
    num  id_key(),
    room BIGINT NOT NULL,
    root BIGINT NOT NULL,
    size BIGINT NOT NULL
);
CREATE INDEX snapshots_of_room ON snapshots (room);

CREATE TABLE trie_nodes (
    room BIGINT NOT NULL,
    node BIGINT NOT NULL,
    data bytes() NOT NULL,
    PRIMARY KEY (room, node)
) without_rowid();

-- The room's current state by position.
CREATE TABLE room_state (
    room     BIGINT NOT NULL,
    position BIGINT NOT NULL,
    snapshot BIGINT NOT NULL,
    PRIMARY KEY (room, position)
) without_rowid();

-- Rooms that we came into without all of their state (`omit_members`), and who may tell the rest.
CREATE TABLE partial_rooms (
    room    id_key(),
    servers bytes() NOT NULL   -- a JSON array of server names
);

-- Events that were judged on a part of the state: judged anew when all of it is here.
CREATE TABLE partial_events (
    room  BIGINT NOT NULL,
    event BIGINT NOT NULL,
    PRIMARY KEY (room, event)
) without_rowid();

-- Membership as intervals of positions; the open interval is the current one.
CREATE TABLE memberships (
    room       BIGINT NOT NULL,
    usr        BIGINT NOT NULL,
    since      BIGINT NOT NULL,
    until      BIGINT,
    membership BIGINT NOT NULL,
    event      BIGINT NOT NULL,
    sender     BIGINT NOT NULL,
    local      BIGINT NOT NULL,  -- 1 if the user is ours
    server     BIGINT,           -- the user's server, if it is another
    forgotten  BIGINT NOT NULL,
    stripped   bytes(),          -- invites and knocks: the stripped state that came with them, a JSON array
    via        BIGINT,           -- of a room that we are not in: the server that told of it,
    told_event bytes(),          -- and the id of the event, which then has no number
    PRIMARY KEY (room, usr, since)
) without_rowid();
CREATE INDEX memberships_of_user ON memberships (usr, since);
CREATE INDEX memberships_of_server ON memberships (room, server, membership) WHERE server IS NOT NULL;
CREATE INDEX memberships_now_of_user ON memberships (usr, membership, room) WHERE until IS NULL;
CREATE INDEX memberships_now_of_room ON memberships (room, membership, since) WHERE until IS NULL;

CREATE TABLE room_servers (
    room   BIGINT NOT NULL,
    server BIGINT NOT NULL,
    since  BIGINT NOT NULL,
    until  BIGINT,
    joined BIGINT NOT NULL,  -- members there
    PRIMARY KEY (room, server, since)
) without_rowid();
CREATE INDEX room_servers_by_server ON room_servers (server);

CREATE TABLE aliases (
    alias   bytes() PRIMARY KEY,
    room    BIGINT NOT NULL,
    creator BIGINT NOT NULL
);
CREATE INDEX aliases_of_room ON aliases (room);

-- Rooms in the public directory.
CREATE TABLE published_rooms (room id_key());

CREATE TABLE receipts (
    room     BIGINT NOT NULL,
    usr      BIGINT NOT NULL,
    kind     BIGINT NOT NULL,   -- 0 m.read, 1 m.read.private
    thread   bytes() NOT NULL,  -- '' unthreaded, 'main', or the id of the thread's root
    event    BIGINT NOT NULL,
    ts       BIGINT NOT NULL,
    position BIGINT NOT NULL,
    outbound BIGINT NOT NULL,   -- 1: of a user of ours, and public: other servers are told
    PRIMARY KEY (room, usr, kind, thread)
) without_rowid();
CREATE INDEX receipts_by_position ON receipts (room, position);
CREATE INDEX receipts_outbound ON receipts (position) WHERE outbound = 1;

-- ---------------------------------------------------------------- unread counts
-- A user's count is a running count less that up to which he has read, and what is written below for him or for all.

-- The tip of each thread.
CREATE TABLE threads (
    room     BIGINT NOT NULL,
    root     BIGINT NOT NULL,
    position BIGINT NOT NULL,   -- of the newest event in it
    unread   BIGINT NOT NULL,   -- running count of what the default push rules notify for
    PRIMARY KEY (room, root)
) without_rowid();
CREATE INDEX threads_by_position ON threads (room, position);

-- How far a local user has read, by receipts, events of his own and joining.
CREATE TABLE reads (
    usr      BIGINT NOT NULL,
    room     BIGINT NOT NULL,
    thread   BIGINT NOT NULL,   -- -1 everything, 0 the main timeline, or the root of a thread
    position BIGINT NOT NULL,   -- of the last event read
    unread   BIGINT NOT NULL,   -- running count at it; of the main timeline if it stands for everything
    PRIMARY KEY (usr, room, thread)
) without_rowid();

-- What an event means to a user for whom it differs from what it means to all.
CREATE TABLE notifications (
    usr             BIGINT NOT NULL,
    position        BIGINT NOT NULL,   -- of the event
    room            BIGINT NOT NULL,
    event           BIGINT NOT NULL,
    thread          BIGINT NOT NULL,   -- root of its thread, or 0
    notify          BIGINT NOT NULL,
    highlight       BIGINT NOT NULL,
    plain           BIGINT NOT NULL,   -- whether the default push rules notify for it
    plain_highlight BIGINT NOT NULL,
    unread          BIGINT NOT NULL,   -- 1 until the user reads it
    actions         bytes() NOT NULL,  -- JSON
    PRIMARY KEY (usr, position)
) without_rowid();
CREATE INDEX notifications_unread ON notifications (usr, room, thread, position) WHERE unread = 1;
CREATE INDEX notifications_of_event ON notifications (event);

-- What differs from the running counts for all: highlights for everybody, and events that were redacted.
CREATE TABLE room_notes (
    room      BIGINT NOT NULL,
    position  BIGINT NOT NULL,   -- of the event
    thread    BIGINT NOT NULL,
    notify    BIGINT NOT NULL,   -- to be added to the count
    highlight BIGINT NOT NULL,
    PRIMARY KEY (room, position)
) without_rowid();

-- ---------------------------------------------------------------- users

CREATE TABLE users (
    num           id_key(),
    localpart     bytes() NOT NULL UNIQUE,
    password_hash TEXT,
    kind          BIGINT NOT NULL,  -- 0 user, 1 guest, 2 application service
    appservice    BIGINT,
    admin         BIGINT NOT NULL,
    locked        BIGINT NOT NULL,
    suspended     BIGINT NOT NULL,
    deactivated   BIGINT NOT NULL,
    erased        BIGINT NOT NULL,
    departing     BIGINT NOT NULL,  -- 1 while a deactivated user still has rooms to leave
    created_ts    BIGINT NOT NULL
);
CREATE INDEX users_departing ON users (num) WHERE departing = 1;

CREATE TABLE devices (
    num          id_key(),
    usr          BIGINT NOT NULL,
    device_id    bytes() NOT NULL,
    display_name bytes(),
    last_seen_ip TEXT,
    last_seen_ts BIGINT,
    created_ts   BIGINT NOT NULL,
    UNIQUE (usr, device_id)
);

-- Tokens are stored as SHA-256 only.
CREATE TABLE access_tokens (
    hash       bytes() PRIMARY KEY,
    usr        BIGINT NOT NULL,
    device     BIGINT,
    refresh    bytes(),          -- hash of the refresh token it came with
    fresh      BIGINT NOT NULL,  -- 1 if a refresh made it and it was not seen in use yet
    expires_ts BIGINT,
    created_ts BIGINT NOT NULL
);
CREATE INDEX access_tokens_of_device ON access_tokens (device);
CREATE INDEX access_tokens_of_user ON access_tokens (usr);

CREATE TABLE refresh_tokens (
    hash        bytes() PRIMARY KEY,
    usr         BIGINT NOT NULL,
    device      BIGINT NOT NULL,
    replaced_by bytes(),         -- hash of its successor, once used
    spent       BIGINT NOT NULL, -- 1 once the successor was seen in use: from then on using this one is theft
    created_ts  BIGINT NOT NULL
);
CREATE INDEX refresh_tokens_of_device ON refresh_tokens (device);
CREATE INDEX refresh_tokens_of_user ON refresh_tokens (usr);
CREATE INDEX refresh_tokens_spent ON refresh_tokens (created_ts) WHERE spent = 1;

-- One-time tokens of `m.login.token`.
CREATE TABLE login_tokens (hash bytes() PRIMARY KEY, usr BIGINT NOT NULL, expires_ts BIGINT NOT NULL);
CREATE INDEX login_tokens_by_expiry ON login_tokens (expires_ts);

CREATE TABLE uia_sessions (
    id         bytes() PRIMARY KEY,
    request    bytes() NOT NULL,  -- hash of what is being authorised: method, path, user and the body of the first call
    completed  bytes() NOT NULL,  -- JSON: stages done and their outcome
    expires_ts BIGINT NOT NULL
);
CREATE INDEX uia_sessions_by_expiry ON uia_sessions (expires_ts);

CREATE TABLE registration_tokens (
    token        bytes() PRIMARY KEY,
    uses_allowed BIGINT,
    completed    BIGINT NOT NULL,
    expires_ts   BIGINT
);

CREATE TABLE registration_nonces (nonce bytes() PRIMARY KEY, expires_ts BIGINT NOT NULL);
CREATE INDEX registration_nonces_by_expiry ON registration_nonces (expires_ts);

CREATE TABLE profiles (
    usr      BIGINT NOT NULL,
    field    bytes() NOT NULL,
    value    bytes() NOT NULL,  -- JSON
    position BIGINT NOT NULL,
    PRIMARY KEY (usr, field)
) without_rowid();

-- Profiles of which the user's rooms may not show the newest name or avatar yet; `changes` grows with each change meanwhile.
CREATE TABLE profiles_unshown (usr id_key(), changes BIGINT NOT NULL);

-- Who is online is in memory; this is what survives a restart.
CREATE TABLE presence (usr id_key(), status_msg bytes() NOT NULL);

CREATE TABLE account_data (
    usr      BIGINT NOT NULL,
    room     BIGINT NOT NULL,  -- 0: global
    kind     bytes() NOT NULL,
    content  bytes() NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (usr, room, kind)
) without_rowid();
CREATE INDEX account_data_by_position ON account_data (usr, position);

-- Users who changed their push rules or ignore somebody, and when last: messages are judged by these rules, too.
CREATE TABLE push_profiles (usr id_key(), position BIGINT NOT NULL);
CREATE INDEX push_profiles_by_position ON push_profiles (position);

CREATE TABLE filters (
    usr    BIGINT NOT NULL,
    num    BIGINT NOT NULL,
    filter bytes() NOT NULL,
    PRIMARY KEY (usr, num)
) without_rowid();

-- ---------------------------------------------------------------- other servers

-- Their signing keys, and how long each is good for.
CREATE TABLE server_keys (
    server         BIGINT NOT NULL,
    key_id         bytes() NOT NULL,
    public_key     bytes() NOT NULL,
    valid_until_ts BIGINT NOT NULL,  -- never more than 7 days after it was fetched
    expired_ts     BIGINT,           -- an old key: signed until then
    vouched        BIGINT NOT NULL,  -- 0: heard from the server itself, 1: from another one
    PRIMARY KEY (server, key_id)
) without_rowid();

-- The newest signed document of keys of each, for those who ask us for it.
CREATE TABLE server_key_documents (
    server         id_key(),
    document       bytes() NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    fetched_ts     BIGINT NOT NULL
);
-- The old ones go.
CREATE INDEX server_key_documents_fetched ON server_key_documents (fetched_ts);

-- Keys that this server signs with or once did. Another key becomes an old one when it is not used any more.
CREATE TABLE own_keys (
    key_id     bytes() PRIMARY KEY,
    public_key bytes() NOT NULL,
    expired_ts BIGINT
);

-- Servers that we talk to.
CREATE TABLE destinations (
    server           id_key(),
    failures         BIGINT NOT NULL,  -- in a row
    failing_since_ts BIGINT,
    retry_ts         BIGINT NOT NULL,  -- nothing is sent before
    last_success_ts  BIGINT,
    last_error       bytes()
);
CREATE INDEX destinations_failing ON destinations (failing_since_ts) WHERE failures > 0;

-- How far each got what is for it. What it lacks is found by position; nothing is written down per event.
CREATE TABLE deliveries (
    server   id_key(),
    sent     BIGINT NOT NULL,  -- it has all up to this position
    upto     BIGINT,           -- a transaction is under way: what comes after `sent` up to here
    begun_ts BIGINT NOT NULL,  -- when that was sent first
    leap     BIGINT            -- it was away for long: of each room only the newest event up to here
);

-- Events for servers that have no members in their room: the end of an invite or of a knock.
CREATE TABLE deliveries_aside (
    server   BIGINT NOT NULL,
    position BIGINT NOT NULL,
    event    BIGINT NOT NULL,
    PRIMARY KEY (server, position, event)
) without_rowid();

-- What users report to whoever runs the server.
CREATE TABLE reports (
    reporter BIGINT NOT NULL,
    num      BIGINT NOT NULL,
    ts       BIGINT NOT NULL,
    subject  bytes() NOT NULL,  -- id of a user or a room
    event_id bytes() NOT NULL,  -- of an event of that room, or empty
    reason   bytes() NOT NULL,
    PRIMARY KEY (reporter, num)
) without_rowid();
CREATE INDEX reports_by_time ON reports (ts);

-- ---------------------------------------------------------------- media

-- Bytes of files, kept once however often they are uploaded: small ones in `blob_data`, the others in the media storage.
CREATE TABLE blobs (
    num    id_key(),
    sha256 bytes() NOT NULL UNIQUE,
    size   BIGINT NOT NULL,
    state  BIGINT NOT NULL  -- 0 somebody is storing it, 1 stored, 2 stored in `blob_data`, 3 being deleted
);

CREATE TABLE blob_data (num id_key(), data bytes() NOT NULL);

-- Blobs that may have lost their last use, or do not have their first one yet, since when: looked at by the collector.
CREATE TABLE blobs_loose (num id_key(), since_ts BIGINT NOT NULL);
CREATE INDEX blobs_loose_since ON blobs_loose (since_ts);

-- What an `mxc://` URI stands for; behind a media id and a `#`, a thumbnail that another server made of it.
CREATE TABLE media (
    origin         BIGINT NOT NULL,  -- server
    media_id       bytes() NOT NULL,
    blob           BIGINT,           -- none: not uploaded yet, or hidden before it was here
    size           BIGINT NOT NULL,  -- of the blob
    content_type   bytes() NOT NULL,
    file_name      bytes(),
    uploader       BIGINT,           -- of what is ours
    created_ts     BIGINT NOT NULL,
    accessed_ts    BIGINT NOT NULL,
    expires_ts     BIGINT,           -- of what is not uploaded yet: until when it can be
    quarantined_ts BIGINT,
    frozen         BIGINT NOT NULL,  -- 1: needs an access token
    PRIMARY KEY (origin, media_id)
) without_rowid();
CREATE INDEX media_of_blob ON media (blob) WHERE blob IS NOT NULL;
CREATE INDEX media_of_uploader ON media (uploader, created_ts, media_id) WHERE uploader IS NOT NULL;
CREATE INDEX media_awaited ON media (uploader, expires_ts) WHERE expires_ts IS NOT NULL;
CREATE INDEX media_overdue ON media (expires_ts) WHERE expires_ts IS NOT NULL;
CREATE INDEX media_of_others ON media (accessed_ts, size) WHERE uploader IS NULL;
CREATE INDEX media_of_ours ON media (accessed_ts) WHERE uploader IS NOT NULL;

-- How much each user has uploaded.
CREATE TABLE media_usage (usr id_key(), files BIGINT NOT NULL, bytes BIGINT NOT NULL);

CREATE TABLE thumbnails (
    blob         BIGINT NOT NULL,  -- of the picture
    width        BIGINT NOT NULL,
    height       BIGINT NOT NULL,
    crop         BIGINT NOT NULL,
    animated     BIGINT NOT NULL,
    thumbnail    BIGINT NOT NULL,  -- blob
    content_type TEXT NOT NULL,
    PRIMARY KEY (blob, width, height, crop, animated)
) without_rowid();
CREATE INDEX thumbnails_of ON thumbnails (thumbnail);

-- SHA-256 of files that are not wanted here.
CREATE TABLE blocked_files (sha256 bytes() PRIMARY KEY, blocked_ts BIGINT NOT NULL);

-- SHA-256 of files that nobody may see, wherever they come from.
CREATE TABLE hidden_files (sha256 bytes() PRIMARY KEY, hidden_ts BIGINT NOT NULL);

-- What linked pages said of themselves, and when.
CREATE TABLE previews (
    url        bytes() NOT NULL,
    fetched_ts BIGINT NOT NULL,
    preview    bytes() NOT NULL,  -- JSON
    PRIMARY KEY (url, fetched_ts)
) without_rowid();
CREATE INDEX previews_by_time ON previews (fetched_ts);
