//! Plain data: the words of the project as types. No tokio, no files, no sockets, no clock.

pub mod balance;
pub mod body;
pub mod compress;
pub mod durability;
mod fact;
pub mod fields;
mod flag;
pub mod flow;
pub mod host;
pub mod inspected;
pub mod mode;
pub mod record;
pub mod subject;
pub mod text_error;
pub mod text_index;
pub mod time;
pub mod verdict;
pub mod websocket;

pub use balance::{Balance, BalanceRow, EarlierBalance, Miscount};
pub use body::Captured;
pub use compress::Compress;
pub use durability::Durability;
pub use fact::{Fact, FactValue};
pub use fields::HeaderFields;
pub use flag::{Flag, Severity};
pub use flow::{Flow, OriginalDestination};
pub use host::{Authority, Host, InvalidHost, OWN_ADDRESS, OWN_NAME};
pub use inspected::Inspected;
pub use mode::Mode;
pub use record::{Failure, Kind, Loss, Question, Record, RecordId, RequestHead, ResponseHead, State, Tls};
pub use subject::{Ancestor, SessionId, Subject};
pub use text_error::TextError;
pub use text_index::TextIndex;
pub use time::Timestamp;
pub use verdict::{Action, Refusal, Verdict};
pub use websocket::WebSocket;
