"""Pieces of HTML that several tabs show. Pure; whatever comes from outside is escaped."""
