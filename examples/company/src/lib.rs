//! The example company.
