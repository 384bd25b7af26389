"""Child processes: started, watched, restarted, ended; none is left behind."""
