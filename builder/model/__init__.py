"""Values that flow through the engine: geometry, cases, tables, layout. Imports nothing of the project but errors."""
