//! Who is known, who is tried next, and when again.
