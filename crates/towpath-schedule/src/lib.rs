//! Cron expressions and time zones, read and computed as Kubernetes does it.
//!
//! CronJobs, freezes and a pipeline's schedules all go through this one reader. Its dialect is that of
//! [`robfig/cron` v3](https://github.com/robfig/cron/tree/v3.0.1), which Kubernetes uses:
//!
//! - five fields (minute, hour, day of the month, month, day of the week), each a list of `*`, `?`, values and ranges, with
//!   an optional `/step`; `?` means the same as `*`;
//! - English names of three letters for months and for days of the week; Sunday is `0`, and `7` is out of range;
//! - a day matches when the day of the month **or** the day of the week matches, unless one of the two fields holds a
//!   wildcard without a step above 1: then both have to match, so `0 0 */2 * 1` means every second day and every Monday;
//! - `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`, and `@every 1h30m`;
//! - no `TZ=` or `CRON_TZ=` in front, which Kubernetes refuses: the time zone is given beside the expression.
//!
//! **Invariant:** an expression is accepted exactly when Kubernetes accepts it. That includes what few people would write:
//! empty entries of a list do not count (`1,,2`), a field of only empty entries never matches (`,`), and what follows a
//! wildcard in a range is not looked at (`*-5`).
//!
//! **Invariant:** [`Schedule::next`] answers what that library answers, changes of the clock included. A run whose time of
//! day a change skips does not take place; one whose time of day comes twice takes place twice.
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
