"""Does advice come with its disclaimer, and does an emergency reach the adapter that is made for it (issue 7)?"""
