"""Fast ways to execute CDVFT and the block-circulant adapter, and the planner that picks one."""
