//! Lookups, announcements, stored values.
