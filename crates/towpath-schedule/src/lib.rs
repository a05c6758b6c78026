//! Cron expressions and time zones, with the same results as in Kubernetes.
//!
//! CronJobs and freezes use this parser. Schedules of pipelines have CircleCI's narrower dialect, which `towpath-config` checks.
//! The dialect here is that of [`robfig/cron` v3](https://github.com/robfig/cron/tree/v3.0.1), which Kubernetes uses:
//!
//! - five fields (minute, hour, day of the month, month, day of the week), each a list of `*`, `?`, values and ranges,
//!   with an optional `/step`; `?` means the same as `*`;
//! - English names of three letters for months and for days of the week; Sunday is `0`, and `7` is out of range;
//! - a day matches when the day of the month **or** the day of the week matches, unless one of the two fields has a
//!   wildcard without a step above 1: then both have to match. So `0 0 */2 * 1` means every second day and every
//!   Monday;
//! - `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`, and `@every 1h30m`;
//! - no `TZ=` or `CRON_TZ=` in front, which Kubernetes refuses: the time zone is a separate argument.
//!
//! **Invariant:** an expression is accepted exactly when Kubernetes accepts it. That includes unusual forms: empty
//! entries of a list are ignored (`1,,2`), a field of only empty entries never matches (`,`), and the end of a range
//! after a wildcard is ignored (`*-5`).
//!
//! **Invariant:** [`Schedule::next`] returns what that library returns, also around clock changes. A run at a skipped
//! time of day does not happen; one at a time of day that occurs twice happens twice.
//!
//! The crate has no clock: callers say what time it is. Time zones come from the database that is compiled in.

mod calendar;
mod duration;
mod expression;
mod schedule;
mod zone;

pub use expression::{Bound, Expression, ExpressionError, Field, FieldKind, Item, Problem};
pub use schedule::{Schedule, ScheduleError};
pub use zone::{ZoneError, time_zone};
