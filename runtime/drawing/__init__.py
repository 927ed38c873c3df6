"""Pictures of programs: what shares a kernel, what lies in memory, and when."""
