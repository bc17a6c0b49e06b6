"""The preflight checks: is this environment fit for the jobs?"""
