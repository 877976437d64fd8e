"""The methods that divide without learned centers: ACLS, watershed, border-core."""
