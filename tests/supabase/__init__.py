"""The Supabase project, on a real PostgreSQL."""
