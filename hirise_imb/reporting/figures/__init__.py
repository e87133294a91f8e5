"""Figures: they draw numbers that were computed elsewhere, and `style` holds their colours and sizes."""
