//! /sync, filters, /events and their kin.
