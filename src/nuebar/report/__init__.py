"""Pictures, tables and pages. The only folder that imports a plotting library."""
