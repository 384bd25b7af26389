"""`python -m evaluation adapters`: is each adapter better than its base, and what does a wrong choice cost?"""
